"""Every non-dominated point of loss against one cost, by label setting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .problem import IntArray, Problem, build
from .verify import chosen_sum

if TYPE_CHECKING:
    import pandas as pd


def exact_front(
    loss: ArrayLike,
    cost: ArrayLike,
    ties: Iterable[Iterable[int]] | None = None,
    *,
    allowed: ArrayLike | None = None,
    pins: Mapping[int, int] | None = None,
) -> pd.DataFrame:
    """All non-dominated (cost, loss) of the additive model, supported and unsupported.

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
    return frame(problem, _labels(problem))


def _labels(problem: Problem) -> IntArray:
    cost = np.zeros(1)
    loss = np.zeros(1)
    history: list[tuple[IntArray, IntArray]] = []
    for group in range(len(problem.loss)):
        offered = np.flatnonzero(problem.allowed[group])
        costs = (cost[:, None] + problem.rows[0, group, offered]).ravel()
        losses = (loss[:, None] + problem.loss[group, offered]).ravel()
        order = np.lexsort((losses, costs))
        ordered = losses[order]
        better = np.ones(len(order), dtype=np.bool_)
        better[1:] = ordered[1:] < np.minimum.accumulate(ordered)[:-1]
        keep = order[better]
        cost, loss = costs[keep], losses[keep]
        history.append((keep // len(offered), offered[keep % len(offered)]))
    picked = np.empty((len(cost), len(problem.loss)), dtype=np.int64)
    label = np.arange(len(cost))
    for group in range(len(problem.loss) - 1, -1, -1):
        parent, choice = history[group]
        picked[:, group] = choice[label]
        label = parent[label]
    return picked


def frame(problem: Problem, picked: IntArray) -> pd.DataFrame:
    """The points of a front with compensated sums, dominated ones removed.

    Args:
        problem: A problem whose first row is the cost.
        picked: Shape [points, groups].

    Returns:
        Columns cost, loss, choice; cost ascending.
    """
    import pandas as pd

    cost = np.array([chosen_sum(problem.rows[0], row) for row in picked])
    loss = np.array([chosen_sum(problem.loss, row) for row in picked])
    order = np.lexsort((loss, cost))
    better = np.ones(len(order), dtype=np.bool_)
    better[1:] = loss[order][1:] < np.minimum.accumulate(loss[order])[:-1]
    keep = order[better]
    choices = problem.expand(picked[keep])
    return pd.DataFrame({"cost": cost[keep], "loss": loss[keep], "choice": list(choices)})


def hull_front(
    loss: ArrayLike,
    cost: ArrayLike,
    ties: Iterable[Iterable[int]] | None = None,
    *,
    allowed: ArrayLike | None = None,
    pins: Mapping[int, int] | None = None,
) -> pd.DataFrame:
    """The points of the front that lie on its lower convex hull.

    Args:
        loss: Shape [sites, choices].
        cost: Shape [sites, choices].
        ties: Groups of sites that take the same choice.
        allowed: Boolean [sites, choices] of what is offered.
        pins: Site to its only choice.

    Returns:
        Columns cost (ascending), loss (descending) and choice (int array [sites]).
    """
    import pandas as pd

    problem = build(loss, {"cost": cost}, {}, ties, allowed=allowed, pins=pins)
    row = problem.rows[0]
    steps: list[tuple[float, int, int]] = []
    start = np.zeros(len(row), dtype=np.int64)
    for group in range(len(row)):
        offered = np.flatnonzero(problem.allowed[group])
        offered = offered[np.lexsort((problem.loss[group, offered], row[group, offered]))]
        hull: list[int] = []
        for choice in offered.tolist():
            if hull and problem.loss[group, choice] >= problem.loss[group, hull[-1]]:
                continue
            while len(hull) > 1 and _slope(problem, group, hull[-2], hull[-1]) >= _slope(
                problem, group, hull[-2], choice
            ):
                hull.pop()
            hull.append(choice)
        start[group] = hull[0]
        steps += [(_slope(problem, group, a, b), group, b) for a, b in zip(hull, hull[1:], strict=False)]
    steps.sort(key=lambda step: step[0])
    picked = np.repeat(start[None], len(steps) + 1, axis=0)
    for index, (_, group, choice) in enumerate(steps):
        picked[index + 1 :, group] = choice
    last = [i for i in range(len(steps)) if i + 1 == len(steps) or steps[i][0] < steps[i + 1][0]]
    points = frame(problem, picked[[0, *(i + 1 for i in last)]])
    return pd.DataFrame(points)


def _slope(problem: Problem, group: int, a: int, b: int) -> float:
    rise = problem.loss[group, b] - problem.loss[group, a]
    run = problem.rows[0, group, b] - problem.rows[0, group, a]
    return float(rise / run) if run > 0 else -np.inf
