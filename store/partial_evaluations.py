"""Evaluations on the first samples of a split, which are stored under the name of the part: ``validation[:16]``."""

from __future__ import annotations

from sqlalchemy import or_, select

from ..measurement import Measurement
from .models import Evaluation
from .store import Store


def longest_evaluations(store: Store, context: str, split: str) -> dict[str, Measurement]:
    """For every configuration the measurement of a context that covers most samples of a split.

    Args:
        store: where.
        context: as given to ``Store.save_evaluation``.
        split: ``validation`` or another whole split.

    Returns:
        Configuration digest -> the measurement of the whole split, or of the longest beginning of it.
    """
    wanted = or_(Evaluation.split == split, Evaluation.split.startswith(f"{split}[", autoescape=True))
    with store.session() as session:
        names = set(session.scalars(select(Evaluation.split).where(Evaluation.context == context, wanted).distinct()))
    found: dict[str, Measurement] = {}
    for name in sorted(names):  # the whole split before its parts
        for digest, measurement in store.evaluations(context, name).items():
            if digest not in found or found[digest].samples < measurement.samples:
                found[digest] = measurement
    return found


def contexts_like(store: Store, beginning: str, end: str) -> set[str]:
    """The contexts of stored evaluations with this beginning and end."""
    query = select(Evaluation.context).where(
        Evaluation.context.startswith(beginning, autoescape=True), Evaluation.context.endswith(end, autoescape=True)
    )
    with store.session() as session:
        return set(session.scalars(query.distinct()))
