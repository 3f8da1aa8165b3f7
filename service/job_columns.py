"""A job's measured candidates as columns with the tables that they were made from: what plots and sliders need.

One answer instead of hundreds of pages: 20,000 candidates of 50 sites are some 3 MB.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput
from ..search.document import sites
from ..store import Candidate, Failure, Job, Store
from .job_arrays import SPLITS, JobArrays, arrays_of
from .job_front import front_rows
from .joint_front import is_joint, no_columns

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""A configuration is a text with one of these characters a site: the index of its format."""


def columns_of(store: Store, job: Job, rows: int | None = None) -> dict[str, Any] | None:
    """Everything that was measured of a job, as columns.

    Args:
        store: where.
        job: which.
        rows: at most so many candidates: the front, the uniform ones and those with held-out data first, then the
            newest; ``None``: all.

    Returns:
        ``None`` before the search has priced and scored; else plain data:

        - ``job``, ``name``, ``state``, ``model``, ``metric``, ``objectives``, ``constraints``, ``float`` (as in
          ``front_of``), ``proposed``, ``measured``, ``failed`` (counts),
        - ``space``: sites (name, kind, weight_shape, elements, macs, formats), formats, ties,
        - ``sensitivities``: proxy -> values [sites, formats], ``None`` where a format is not offered,
        - ``price_tables``: metric -> values [sites, formats], base, source, provenance, and ``additive``: whether a
          configuration costs the sum of its sites,
        - ``ids``, ``digests``, ``origins``, ``baselines``, ``choices`` (text, see ``ALPHABET``), ``predicted``
          (score of the proposer's proxy), ``pareto``, ``feasible`` [candidates],
        - ``quality``: split -> ``value``, ``low``, ``high`` [candidates], ``prices``: metric -> the same.

    Raises:
        InvalidInput: the space has more formats than ``ALPHABET``, or the job searches architectures too.
    """
    if is_joint(job):
        raise no_columns(job)
    arrays = arrays_of(store, job)
    if arrays is None:
        return None
    known = arrays.knowledge
    space = known.space
    if len(space.formats) > len(ALPHABET):
        raise InvalidInput(
            f"{len(space.formats)} formats; columns are for at most {len(ALPHABET)}, read the candidates"
        )
    with arrays.lock:
        chosen = _rows(arrays, rows)
        choices = arrays.choices[chosen].astype(np.int64)
        digests = [arrays.digests[row] for row in chosen]
        uniform = {found.digest: name for name, found in reversed(space.uniforms().items())}
        front = set(front_rows(arrays).tolist())
        letters = np.frombuffer(ALPHABET.encode(), dtype=np.uint8)[choices]
        predicted, failed = _predicted(store, job), _failed(store, arrays)
        return {
            "job": job.id,
            "name": job.name,
            "state": job.state,
            "model": known.model,
            "metric": known.metric,
            "objectives": list(known.objectives),
            "constraints": dict(known.constraints),
            "float": {
                split: {name: value if math.isfinite(value) else None for name, value in found.items()}
                for split, found in arrays.float_model.items()
            },
            "proposed": arrays.proposed,
            "measured": int(arrays.measured().sum()),
            "failed": failed,
            "space": sites(space),
            "sensitivities": {name: _table(found.values) for name, found in known.sensitivities.items()},
            "price_tables": {
                name: {
                    "values": _table(found.values),
                    "base": found.base,
                    "source": found.source,
                    "provenance": found.provenance,
                    "additive": found.whole is None and found.joint is None,
                }
                for name, found in known.prices.items()
            },
            "ids": [f"uniform-{uniform[digest]}" if digest in uniform else digest for digest in digests],
            "digests": digests,
            "origins": [arrays.origins[row] for row in chosen],
            "baselines": [uniform.get(digest) for digest in digests],
            "choices": [each.tobytes().decode() for each in letters],
            "predicted": [predicted.get(digest) for digest in digests],
            "pareto": [int(row) in front for row in chosen],
            "feasible": _feasible(arrays, chosen),
            "quality": {split: _three(arrays.quality[split][chosen, :3]) for split in SPLITS},
            "prices": {name: _three(table.intervals(choices)) for name, table in known.prices.items()},
        }


def _rows(arrays: JobArrays, most: int | None) -> NDArray[np.int64]:
    """Measured rows in the order of proposal; of more than ``most`` the telling ones and the newest."""
    measured = np.flatnonzero(arrays.measured())
    if most is None or len(measured) <= most:
        return measured
    uniform = {arrays.row(found.digest) for found in arrays.knowledge.space.uniforms().values()}
    first = set(front_rows(arrays).tolist()) | set(np.flatnonzero(arrays.measured("holdout")).tolist())
    first = (first | {row for row in uniform if row is not None}) & set(measured.tolist())
    rest = [int(row) for row in measured[::-1] if int(row) not in first]
    return np.array(sorted([*first, *rest[: max(0, most - len(first))]]), dtype=np.int64)


def _feasible(arrays: JobArrays, rows: NDArray[np.int64]) -> list[bool]:
    fits = np.ones(len(rows), dtype=bool)
    for metric, limit in arrays.knowledge.constraints.items():
        fits &= arrays.totals(metric)[rows] <= limit * (1 + 1e-9)
    return [bool(each) for each in fits]


def _predicted(store: Store, job: Job) -> dict[str, float]:
    from sqlalchemy import select

    with store.session() as session:
        query = select(Candidate.configuration, Candidate.predicted).where(
            Candidate.job_id == job.id, Candidate.predicted.is_not(None)
        )
        return {digest: float(value) for digest, value in session.execute(query) if value is not None}


def _failed(store: Store, arrays: JobArrays) -> int:
    from sqlalchemy import func, select

    with store.session() as session:
        query = select(func.count()).where(
            Failure.context == arrays.knowledge.contexts["validation"], Failure.split == "validation"
        )
        return session.scalar(query) or 0


def _three(values: NDArray[np.float64]) -> dict[str, list[float | None]]:
    return {name: _numbers(values[:, column]) for column, name in enumerate(("value", "low", "high"))}


def _table(values: NDArray[np.float64]) -> list[list[float | None]]:
    return [_numbers(row) for row in values]


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    """NaN as ``None``."""
    return [value if math.isfinite(value) else None for value in values.tolist()]
