"""What a job of the store has found so far: its front, its candidates by pages, and answers to other budgets.

All of it comes from the store, at any moment (waiting, running, paused, ended), without model and data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput
from ..measurement import Measurement
from ..search.choice import Point
from ..search.pareto import non_dominated
from ..search.resolve import answer, check_budgets, result_of
from ..space import Configuration
from ..store import Job, Store
from ..task import Split
from .job_arrays import SPLITS, JobArrays, arrays_of, measurements_of
from .job_candidates import candidates_page
from .joint_front import front_of_joint, is_joint, no_new_budget

__all__ = ["candidates_page", "front_of", "solve"]

_BLOCK = 512  # points that a Pareto filter looks at together
_ALL = 256  # measured points up to which an answer considers all
_CONSIDERED = 128  # else: so many, or as many as have held-out data
_BEST = 32  # added by quality within a budget that none of those meets


def front_of(store: Store, job: Job, networks: bool = False) -> dict[str, Any]:
    """The front of everything that a job proposed and measured, and its uniform configurations.

    Args:
        store: where.
        job: which.
        networks: of a job that searches architectures, tell the layers of every point's network too.

    Returns:
        Plain data: job, state, metric, objectives, constraints, float, proposed, measured (counts), and points, the
        cheapest in the first price first; each has id, config, origin, baseline, measured, prices, pareto, feasible.
        Ids are ``uniform-w4`` or the configuration's digest: they stay what they are while a job runs. Of a job that
        searches architectures, more: see ``joint_front.front_of_joint``.
    """
    if is_joint(job):
        return front_of_joint(store, job, networks)
    arrays = arrays_of(store, job)
    about: dict[str, Any] = {"job": job.id, "state": job.state}
    if arrays is None:
        empty: dict[str, Any] = {
            "metric": None,
            "objectives": [],
            "constraints": {},
            "float": {},
            "proposed": 0,
            "measured": 0,
        }
        return {**about, **empty, "points": []}
    known = arrays.knowledge
    with arrays.lock:
        return {
            **about,
            "metric": known.metric,
            "objectives": list(known.objectives),
            "constraints": dict(known.constraints),
            "float": dict(arrays.float_model),
            "proposed": arrays.proposed,
            "measured": int(arrays.measured().sum()),
            "points": _points(arrays),
        }


def solve(store: Store, job: Job, budgets: Mapping[str, float]) -> dict[str, Any]:
    """The answer to a budget: the best measured configuration, and the exact optimum of the additive model.

    As ``search.resolve``, on the measurements of this job. Of very many the answer considers those with held-out data,
    the uniform ones, the best within the budget, and the front; it says how many. Before there are held-out data the
    best is that of the validation data, and its reason says so.

    Args:
        store: where.
        job: which; its constraints hold too, unless a budget on the same price replaces them.
        budgets: price -> largest value.

    Raises:
        InvalidInput: nothing is known of the job yet, it searches architectures too, or a budget names a price that it
            did not ask for.
        InfeasibleBudget: no configuration meets the budget; the message names the smallest that can be.
    """
    if is_joint(job):
        raise no_new_budget(f"job {job.id}")
    arrays = arrays_of(store, job)
    if arrays is None:
        raise InvalidInput(f"job {job.id} is {job.state} and has neither prices nor scores yet; ask again once it runs")
    bad = [f"{name}={limit!r}" for name, limit in budgets.items() if not (math.isfinite(limit) and limit > 0)]
    if bad:
        raise InvalidInput(f"budget {bad[0]}; give a positive number")
    known = arrays.knowledge
    limits = {**known.constraints, **budgets}
    check_budgets(known, limits)
    with arrays.lock:
        measured = int(arrays.measured().sum())
        rows = _considered(arrays, limits)
        origins = {_configuration(arrays, row): arrays.origins[row] for row in rows}
        so_far = None if len(arrays.float_model) == len(SPLITS) else _best_so_far(arrays, limits)
        fitted = arrays.fitted
    result = result_of(known, origins, _measurements(store, arrays, origins), limits)
    if result is None and not limits:
        raise InvalidInput(f"job {job.id} is {job.state} without held-out measurements; give a budget on a price")
    if result is not None:
        result.points = [replace(point, id=_id(point)) for point in result.points]
        if fitted is not None and fitted[0] == rows:  # it depends on scores and measurements, not on budgets
            result.fitted = fitted[1]
    given = answer(known, limits, result).plain()
    if result is not None and "fitted" in vars(result):
        arrays.fitted = rows, result.fitted
    if given["best"] is None:
        given["best"] = so_far
    return {**given, "points": measured, "considered": len(rows)}


def _points(arrays: JobArrays) -> list[dict[str, Any]]:
    """The measured front and the measured uniform configurations."""
    known = arrays.knowledge
    space = known.space
    uniform = {found.digest: name for name, found in reversed(space.uniforms().items())}
    names = [name for name in known.objectives if name != "quality"]
    front = front_rows(arrays)
    known_rows = arrays.measured()
    baselines = {row for digest in uniform if (row := arrays.row(digest)) is not None and known_rows[row]}
    on_front = set(front.tolist())
    cheapest, feasible = arrays.totals(names[0]), _feasible(arrays, known.constraints)
    shown = sorted(on_front | baselines, key=lambda row: (cheapest[row], arrays.digests[row]))
    return [
        {
            **_point(arrays, row),
            "id": f"uniform-{name}" if (name := uniform.get(arrays.digests[row])) else arrays.digests[row],
            "baseline": name,
            "pareto": row in on_front,
            "feasible": bool(feasible[row]),
        }
        for row in shown
    ]


def _id(point: Point) -> str:
    """As in ``front_of``; a search numbers its points anew whenever there are more."""
    return f"uniform-{point.baseline}" if point.baseline else point.configuration.digest


def front_rows(arrays: JobArrays) -> NDArray[np.int64]:
    """Rows of the measured front: what is new is held against the front of the rest, which gives the same."""
    measured = arrays.measured()
    judged = np.zeros(len(measured), dtype=bool)
    judged[: len(arrays.judged)] = arrays.judged
    rows = np.concatenate([arrays.front, np.flatnonzero(measured & ~judged)])
    names = [name for name in arrays.knowledge.objectives if name != "quality"]
    costs = [arrays.totals(name)[rows] for name in names]
    arrays.front = rows[_front(np.column_stack([arrays.quality["validation"][rows, 0], *costs]))]
    arrays.judged = measured
    return arrays.front


def _point(arrays: JobArrays, row: int) -> dict[str, Any]:
    if row not in arrays.shown:
        choice = arrays.choices[row].astype(np.int64)
        arrays.shown[row] = {
            "digest": arrays.digests[row],
            "config": _configuration(arrays, row).to_dict(),
            "origin": arrays.origins[row],
            "prices": {name: asdict(table.total(choice)) for name, table in arrays.knowledge.prices.items()},
        }
    return {**arrays.shown[row], "measured": {split: _quality(arrays, split, row) for split in SPLITS}}


def _quality(arrays: JobArrays, split: Split, row: int) -> dict[str, Any] | None:
    value, low, high, seconds, samples = arrays.quality[split][row].tolist()
    if math.isnan(value):
        return None
    return {"value": value, "low": low, "high": high, "seconds": seconds, "samples": int(samples)}


def _configuration(arrays: JobArrays, row: int) -> Configuration:
    return arrays.knowledge.space.configuration(arrays.choices[row])


def _feasible(arrays: JobArrays, limits: Mapping[str, float]) -> NDArray[np.bool_]:
    fits = np.ones(len(arrays.digests), dtype=bool)
    for metric, limit in limits.items():
        fits &= arrays.totals(metric) <= limit * (1 + 1e-9)
    return fits


def _front(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """As ``non_dominated``, for very many points: the front of the fronts of blocks, which is the same."""
    alive = np.arange(len(points))
    while len(alive) > _BLOCK:
        order = np.array_split(alive, -(-len(alive) // _BLOCK))
        kept = np.concatenate([block[non_dominated(points[block])] for block in order])
        if len(kept) > 0.7 * len(alive):  # blocks bring nothing more
            break
        alive = kept
    found = np.zeros(len(points), dtype=bool)
    found[alive[non_dominated(points[alive])]] = True
    return found


def _considered(arrays: JobArrays, limits: Mapping[str, float]) -> list[int]:
    """The measured candidates that an answer looks at, in the order of proposal: all, unless they are very many.

    They are the same for all budgets that a validated one meets, so that the surrogate is fitted once.
    """
    measured, held_out = arrays.measured(), arrays.measured("holdout")
    rows = np.flatnonzero(measured)
    if len(rows) <= _ALL:
        return [int(row) for row in rows]
    uniform = [arrays.row(found.digest) for found in arrays.knowledge.space.uniforms().values()]
    kept = {row for row in uniform if row is not None and measured[row]}
    kept |= set(np.flatnonzero(measured & held_out).tolist())
    first = next(name for name in arrays.knowledge.objectives if name != "quality")
    front = front_rows(arrays)
    ordered = front[np.argsort(arrays.totals(first)[front], kind="stable")]
    for group in (ordered, rows):  # evenly along the front, then among all
        free = min(max(0, _CONSIDERED - len(kept)), len(group))
        kept |= set(group[np.unique(np.linspace(0, len(group) - 1, free).astype(int))].tolist())
    feasible = _feasible(arrays, limits)
    if not any(feasible[row] and held_out[row] for row in kept):
        within = np.flatnonzero(measured & feasible)
        best = np.argsort(arrays.quality["validation"][within, 0], kind="stable")[:_BEST]
        kept |= set(within[best].tolist())
    return sorted(kept)


def _measurements(
    store: Store, arrays: JobArrays, origins: Mapping[Configuration, str]
) -> dict[tuple[str, Split], Measurement]:
    from ..search.problem import FLOAT

    digests = [FLOAT.digest, *(found.digest for found in origins)]
    return {
        (digest, split): found
        for split, context in arrays.knowledge.contexts.items()
        for digest, found in measurements_of(store, context, split, digests).items()
    }


def _best_so_far(arrays: JobArrays, limits: Mapping[str, float]) -> dict[str, Any] | None:
    """The best within limits on the validation data."""
    eligible = np.flatnonzero(arrays.measured() & _feasible(arrays, limits))
    if not len(eligible):
        return None
    row = int(eligible[np.argmin(arrays.quality["validation"][eligible, 0])])
    reason = "the best on the validation data so far; held-out data are measured at the end"
    return {**_point(arrays, row), "id": arrays.digests[row], "baseline": None, "reason": reason}
