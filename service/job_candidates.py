"""The candidates of a job, page by page in the order of proposal: what was proposed, what came of it, what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sqlalchemy import or_, select

from ..errors import InvalidInput
from ..search.knowledge import Knowledge
from ..store import Candidate, Evaluation, Failure, Job, Store
from .job_arrays import SPLITS, knowledge_of
from .joint_front import is_joint
from .joint_live import candidates_of

_LONGEST_PAGE = 1000
_QUALITY = ("value", "low", "high", "seconds", "samples")


def candidates_page(
    store: Store, job: Job, cursor: str | None = None, limit: int = 100
) -> tuple[list[dict[str, Any]], str | None]:
    """A page of what a job proposed, in the order of proposal.

    Args:
        store: where.
        job: which.
        cursor: as the page before gave it; ``None`` for the first page.
        limit: candidates on a page, at most 1000.

    Returns:
        Rows: configuration (digest), config, origin, predicted (score), state (``measured``, ``failed`` or
        ``proposed``), failure, measured, prices; of a job that searches architectures ``architecture`` too, and
        configuration is the digest of the genome; and the cursor of the next page, ``None`` after the last.

    Raises:
        InvalidInput: the cursor is not of this list, or the limit is out of range.
    """
    if not 1 <= limit <= _LONGEST_PAGE:
        raise InvalidInput(f"limit {limit}; give 1 to {_LONGEST_PAGE}")
    query = select(Candidate).where(Candidate.job_id == job.id).order_by(Candidate.position, Candidate.configuration)
    if cursor is not None:
        position, digest = _place(cursor)
        same = (Candidate.position == position) & (Candidate.configuration > digest)
        query = query.where(Candidate.position >= position, or_(Candidate.position > position, same))
    with store.session() as session:
        found = list(session.scalars(query.limit(limit + 1)))
    page, more = found[:limit], len(found) > limit
    rows = _genomes(store, job, page) if is_joint(job) else _rows(store, job, page)
    return rows, f"{page[-1].position}-{page[-1].configuration}" if more else None


def _rows(store: Store, job: Job, page: list[Candidate]) -> list[dict[str, Any]]:
    known = knowledge_of(store, job)
    measured, failed = ({}, {}) if known is None else _outcomes(store, known, [row.configuration for row in page])
    prices = [{} for _ in page] if known is None else _prices(known, page)
    return [
        {
            "configuration": row.configuration,
            "config": row.formats,
            "origin": row.origin,
            "predicted": row.predicted,
            "state": _state(row.configuration, measured, failed),
            "failure": failed.get(row.configuration),
            "measured": {split: measured.get((row.configuration, split)) for split in SPLITS},
            "prices": price,
        }
        for row, price in zip(page, prices, strict=True)
    ]


def _genomes(store: Store, job: Job, page: list[Candidate]) -> list[dict[str, Any]]:
    found = candidates_of(store, job)
    proposed = {each.digest: each for each in found.genomes}
    return [
        {
            "configuration": each.digest,
            "config": each.genome.configuration.to_dict(),
            "architecture": each.genome.choices.to_dict(),
            "origin": each.origin,
            "predicted": each.predicted,
            "state": _state(each.digest, found.quality, found.failed),
            "failure": found.failed.get(each.digest),
            "measured": {split: found.of(each.digest, split) for split in SPLITS},
            "prices": {name: price.value for name, price in (each.prices or {}).items()},
        }
        for each in (proposed[row.configuration] for row in page)
    ]


def _outcomes(
    store: Store, known: Knowledge, digests: list[str]
) -> tuple[dict[tuple[str, str], dict[str, Any]], dict[str, str]]:
    """Measurements by (digest, split), and why some have none."""
    measured: dict[tuple[str, str], dict[str, Any]] = {}
    columns = (Evaluation.configuration, *(getattr(Evaluation, name) for name in _QUALITY))
    with store.session() as session:
        for split, context in known.contexts.items():
            where = (Evaluation.context == context, Evaluation.split == split, Evaluation.configuration.in_(digests))
            for digest, *values in session.execute(select(*columns).where(*where)):
                measured[digest, split] = dict(zip(_QUALITY, values, strict=True))
        lost = select(Failure.configuration, Failure.reason).where(
            Failure.context == known.contexts["validation"], Failure.configuration.in_(digests)
        )
        return measured, {row.configuration: row.reason for row in session.execute(lost)}


def _state(digest: str, measured: Mapping[Any, Any], failed: Mapping[str, str]) -> str:
    if (digest, "validation") in measured:
        return "measured"
    return "failed" if digest in failed else "proposed"


def _prices(known: Knowledge, page: list[Candidate]) -> list[dict[str, float]]:
    """The values of all prices by candidate; none for the float model."""
    column = {name: index for index, name in enumerate(known.space.formats)}
    names, formats = known.space.names, [row.formats for row in page]
    rows = [
        index
        for index, given in enumerate(formats)
        if given.keys() == set(names) and column.keys() >= set(given.values())
    ]
    found: list[dict[str, float]] = [{} for _ in page]
    if rows:
        choices = np.array([[column[formats[index][name]] for name in names] for index in rows], dtype=np.int64)
        for metric, table in known.prices.items():
            for index, value in zip(rows, table.totals(choices).tolist(), strict=True):
                found[index][metric] = value
    return found


def _place(cursor: str) -> tuple[int, str]:
    position, _, digest = cursor.partition("-")
    if not position.isdecimal() or len(position) > 9 or len(digest) > 16:
        raise InvalidInput(f"cursor {cursor[:40]!r} did not come from this list")
    return int(position), digest
