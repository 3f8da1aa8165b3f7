"""Islands on Ray workers: a round of an island is a task, its state lies in Ray's object store between rounds.

A round is a pure function of the state and of who arrives, so any worker can run any island, there may be more islands
than workers, and Ray simply runs again what a dead worker left. A worker process keeps benches and known formulas from
its first round on.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from ...errors import BitfrontError
from ..ray_cluster import ray_cluster
from .bench_data import BenchData, common_inputs
from .islands import Report, report_of
from .population import Individual, Island
from .record import Record
from .scoring import Scorer
from .seeds import seeds_for
from .settings import EvolutionSettings

_RETRIES = 2  # of a round whose worker died
_scorers: dict[str, Scorer] = {}  # of this worker process, by evolution


class RayIslands:
    """Islands on Ray workers.

    Args:
        benches: the configurations that formulas are chosen on.
        settings: of the evolution.
        known: formulas that were tried before.
        workers: rounds that run at once, one CPU each.
        address: of a running Ray cluster; default: the one that is connected, else a local one for the evolution.
    """

    def __init__(
        self,
        benches: Sequence[BenchData],
        settings: EvolutionSettings,
        known: Sequence[Record],
        workers: int,
        address: str | None = None,
    ) -> None:
        self._workers = min(workers, settings.islands)
        os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # the first error is told, the others are its like
        self._stack = ExitStack()
        self._stack.enter_context(ray_cluster(self._workers, address))
        try:
            import ray

            self._task = ray.remote(num_cpus=1, num_returns=2, max_retries=_RETRIES)(_round)
            self._token = secrets.token_hex(8)
            self._data = ray.put((list(benches), settings, list(known)))
            seeds = seeds_for(common_inputs(benches), settings)
            self._states: list[Any] = [
                ray.put(Island.first(settings, index, seeds)) for index in range(settings.islands)
            ]
            warm = ray.remote(num_cpus=1, max_retries=_RETRIES)(_loaded)
            loading = [warm.remote(self._token, [self._data]) for _ in range(self._workers)]
            ray.wait(loading, num_returns=len(loading))
        except BaseException:
            self._stack.close()
            raise

    def round(self, arrivals: Sequence[Sequence[Individual]]) -> Iterator[Report]:
        """See ``Islands.round``.

        Raises:
            BitfrontError: a worker failed; the message carries the cause.
        """
        import ray

        waiting = list(range(len(self._states)))[::-1]
        running: list[Any] = []

        def start() -> None:
            island = waiting.pop()
            state, report = self._task.remote(self._token, [self._data], island, self._states[island], arrivals[island])
            self._states[island] = state
            running.append(report)

        while waiting and len(running) < self._workers:
            start()
        while running:
            done, running[:] = ray.wait(running, num_returns=1)
            if waiting:
                start()
            yield _received(done[0])

    def close(self) -> None:
        """Let go of the states, and stop the cluster if it was started here."""
        self._states, self._data = [], None
        self._stack.close()


def _round(
    token: str, data: list[Any], index: int, island: Island, arrivals: Sequence[Individual]
) -> tuple[Island, Report]:
    """A round of one island in a worker: its next state, and what came of it."""
    scorer = _scorer(token, data)
    found = report_of(index, island, scorer, scorer.settings, arrivals)
    return island, found


def _loaded(token: str, data: list[Any]) -> None:
    """A worker that imports and loads everything before the clock of the evolution starts."""
    _scorer(token, data)


def _scorer(token: str, data: list[Any]) -> Scorer:
    if token not in _scorers:
        import ray

        _scorers.clear()
        _scorers[token] = Scorer(*ray.get(data[0]))
    return _scorers[token]


def _received(reference: Any) -> Report:
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        report: Report = ray.get(reference)
        return report
    except RayTaskError as failed:
        if isinstance(failed.cause, BitfrontError):
            raise failed.cause from None
        raise BitfrontError(f"a worker of the evolution failed: {failed.cause!r}") from failed
    except RayError as lost:
        told = str(lost).strip().splitlines()[0]
        raise BitfrontError(f"a worker of the evolution was lost: {told}; run again to go on") from lost
