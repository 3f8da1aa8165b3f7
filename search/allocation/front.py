"""Fronts of loss against costs: every non-dominated point, those on the hull, or a certified selection."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

from ...errors import InvalidInput
from .certified import Certificate, certified_points
from .epsilon import epsilon_front
from .hulls import hull_steps, prefixes
from .labels import MAX_POINTS, front_labels, front_labels_many
from .problem import FloatArray, IntArray, Problem, build
from .sums import compensated_sums, staircase
from .verify import UNIT

if TYPE_CHECKING:
    import pandas as pd

FrontMethod = Literal["auto", "labels", "epsilon"]


def exact_front(
    loss: ArrayLike,
    cost: ArrayLike | Mapping[str, ArrayLike],
    ties: Iterable[Iterable[int]] | None = None,
    *,
    allowed: ArrayLike | None = None,
    pins: Mapping[int, int] | None = None,
    tolerance: float = 0.0,
    certificate: Certificate = "pareto",
    max_cost: float = math.inf,
    max_loss: float = math.inf,
    method: FrontMethod = "auto",
    max_points: int = MAX_POINTS,
    time_limit: float | None = None,
) -> pd.DataFrame:
    """All non-dominated (cost, loss) of the additive model, supported and unsupported.

    With one cost by label setting: partial configurations that another one dominates are dropped group by group, which
    keeps every non-dominated complete one. With several costs by label setting in more dimensions, or by epsilon
    constraints. Values that differ by less than the rounding error of their sum count as equal.

    With a `tolerance` (one cost) a selection of points is returned instead, with a proof that nothing is missed by
    more: every configuration has a point with at most `1 + tolerance` times its cost and its loss.
    `front.attrs["tolerance"]` is what has been proven.

    Args:
        loss: Shape [sites, choices].
        cost: Shape [sites, choices], or several of them by name.
        ties: Groups of sites that take the same choice.
        allowed: Boolean [sites, choices] of what is offered.
        pins: Site to its only choice.
        tolerance: 0 for the whole front, or how far from it is allowed.
        certificate: "pareto" as above; "loss" is stricter: at every budget the best point within it has at most
            `1 + tolerance` times the smallest loss; "range" as "loss", with the tolerance as a fraction of the range of
            losses. Values that are not positive need "range".
        max_cost: Only the part of the front up to this cost (one cost, no tolerance).
        max_loss: Only the part of the front up to this loss (one cost, no tolerance).
        method: For several costs; "auto" is "labels" and, where these grow too many, "epsilon".
        max_points: Most points (labels) to keep.
        time_limit: Seconds; for "epsilon" and for a tolerance. What is missing then is said in `front.attrs`.

    Returns:
        Columns cost (ascending; with several costs their names), loss and choice (int array [sites]); with a tolerance
        also `bound` (no configuration of at most this cost has a smaller loss) and `gap` (how far the point can be from
        the front, in the unit of the tolerance).

    Raises:
        InvalidInput: If an argument cannot be used, or the front has more than `max_points` points.
    """
    deadline = math.inf if time_limit is None else time.perf_counter() + time_limit
    costs = dict(cost) if isinstance(cost, Mapping) else {"cost": cost}
    if not costs or not 0.0 <= tolerance < math.inf or any(np.ndim(table) != 2 for table in costs.values()):
        raise InvalidInput("exact_front expects costs [sites, choices], at least one, and a tolerance of 0 or more")
    if {"loss", "choice"} & set(costs):
        raise InvalidInput("a cost cannot be named 'loss' or 'choice'; these are columns of the front")
    if min(max_cost, max_loss) < math.inf and (tolerance > 0 or len(costs) > 1):
        raise InvalidInput(
            "max_cost and max_loss are offered for one cost without a tolerance; filter the front instead"
        )
    problem = build(loss, costs, {}, ties, allowed=allowed, pins=pins)
    if tolerance > 0 and len(costs) == 1:
        points = certified_points(problem, tolerance, certificate, deadline, max_points)
        found = frame(problem, points.picked, keep_all=True)
        found["bound"], found["gap"] = points.bound, points.gap
        found.attrs.update(tolerance=points.proven, certificate=certificate)
        return found
    if tolerance > 0:
        raise InvalidInput("a tolerance is offered for one cost only; with several, set it to 0")
    if len(costs) == 1:
        found = frame(problem, front_labels(problem, max_points, max_cost, max_loss))
        inside = (found["cost"] <= max_cost) & (found["loss"] <= max_loss)
        return found if inside.all() else found[inside].reset_index(drop=True)
    if method == "epsilon":
        picked, complete = epsilon_front(problem, deadline)
    else:
        labels = front_labels_many(problem, max_points)
        if labels is None and method == "labels":
            raise InvalidInput(f"more than {max_points} labels; allow more or use method='epsilon' with a time limit")
        picked, complete = (labels, True) if labels is not None else epsilon_front(problem, deadline)
    found = frame(problem, picked)
    found.attrs["complete"] = complete
    return found


def hull_front(
    loss: ArrayLike,
    cost: ArrayLike,
    ties: Iterable[Iterable[int]] | None = None,
    *,
    allowed: ArrayLike | None = None,
    pins: Mapping[int, int] | None = None,
) -> pd.DataFrame:
    """The vertices of the front's lower convex hull: what weighted sums can reach, in milliseconds.

    Args:
        loss: Shape [sites, choices].
        cost: Shape [sites, choices].
        ties: Groups of sites that take the same choice.
        allowed: Boolean [sites, choices] of what is offered.
        pins: Site to its only choice.

    Returns:
        Columns cost (ascending), loss (descending) and choice (int array [sites]).
    """
    problem = build(loss, {"cost": cost}, {}, ties, allowed=allowed, pins=pins)
    steps = hull_steps(problem.loss, problem.rows[0], problem.allowed)
    count = len(steps.group)
    last = np.ones(count, dtype=np.bool_)  # of steps with the same slope only the last ends in a vertex
    last[:-1] = steps.slope[1:] > steps.slope[:-1] * (1.0 - 1e-12)
    vertex = np.concatenate([[0], np.flatnonzero(last) + 1])
    picked = prefixes(steps.start, steps.group, steps.after, vertex)
    every = np.arange(len(steps.start))
    cost_at = np.concatenate([[0.0], np.cumsum(steps.cost)])[vertex] + problem.rows[0][every, steps.start].sum()
    best = steps.start.copy()
    best[steps.group] = steps.after
    rising = np.append(np.cumsum(-steps.loss[::-1])[::-1], 0.0)  # summed from the small end, to keep its accuracy
    loss_at = (problem.loss[every, best].sum() + rising)[vertex]
    keep = _undominated(problem, cost_at, loss_at)
    return _columns({"cost": cost_at[keep]}, loss_at[keep], problem.expand(picked[keep]))


def frame(problem: Problem, picked: IntArray, keep_all: bool = False) -> pd.DataFrame:
    """The points of a front with compensated sums, dominated ones removed.

    Args:
        problem: A problem whose rows are the costs.
        picked: Shape [points, groups].
        keep_all: Do not remove or reorder anything.

    Returns:
        Columns with the costs, loss, choice; the first cost ascending.
    """
    costs = {name: compensated_sums(row, picked) for name, row in zip(problem.names, problem.rows, strict=True)}
    loss = compensated_sums(problem.loss, picked)
    if not keep_all:
        if len(costs) == 1:
            (cost,) = costs.values()
            keep = _undominated(problem, cost, loss)
        else:
            keep = np.lexsort((loss, *reversed(costs.values())))
        costs = {name: values[keep] for name, values in costs.items()}
        loss, picked = loss[keep], picked[keep]
    return _columns(costs, loss, problem.expand(picked))


def _undominated(problem: Problem, cost: FloatArray, loss: FloatArray) -> IntArray:
    """Indices of the points that no other one dominates by more than the rounding error of the sums."""
    error = 4.0 * len(problem.loss) * UNIT
    shifted_cost, cost_floor = _shifted(cost, problem.rows[0], problem)
    shifted_loss, loss_floor = _shifted(loss, problem.loss, problem)
    return staircase(shifted_cost, shifted_loss, error, error, error * cost_floor, error * loss_floor)


def _shifted(sums: FloatArray, table: FloatArray, problem: Problem) -> tuple[FloatArray, float]:
    """Sums above the smallest possible one, and the size of the terms whose rounding that subtraction lays bare."""
    least = np.asarray(np.where(problem.allowed, table, np.inf).argmin(axis=1)[None])
    return sums - compensated_sums(table, least), float(compensated_sums(np.abs(table), least)[0])


def _columns(costs: Mapping[str, FloatArray], loss: FloatArray, choices: IntArray) -> pd.DataFrame:
    import pandas as pd

    column = np.empty(len(choices), dtype=object)
    for at, choice in enumerate(choices):
        column[at] = choice
    return pd.DataFrame({**costs, "loss": loss, "choice": column})
