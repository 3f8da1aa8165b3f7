"""Outcomes into the store: measurements, and failures, so that a restart does not repeat what failed."""

from __future__ import annotations

from ..store import Store
from .work import Outcome


def keep(store: Store, context: str, outcome: Outcome) -> None:
    """Commit one outcome before it counts.

    A failure is kept under the whole split, also when only the first batches were asked for: what gives NaN there gives
    it on the whole. ``Store.failures`` tells what not to ask for again: what is final for ever, a candidate whose
    workers died for a day.

    Args:
        store: where.
        context: ``evaluation_context`` of the split.
        outcome: as an executor commits it.
    """
    work = outcome.work
    if outcome.measurement is not None:
        store.save_evaluation(context, work.configuration, outcome.measurement, outcome.worker)
    else:
        store.save_failure(
            context, work.configuration, work.split, outcome.failure, final=outcome.final, worker=outcome.worker
        )
