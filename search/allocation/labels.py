"""Whole fronts by label setting.

A label is a partial configuration of the groups seen so far, with its cost and loss. If another label has no larger
cost and no larger loss, every completion of the first is dominated by the same completion of the second: it can go (G.
L. Nemhauser and Z. Ullmann, Discrete dynamic programming and capital allocation, Management Science 15, 1969). The
labels that are left after the last group are the front.

Bound: where only a part of the front is wanted, a label is dropped whose best completion leaves that part: with the
hull `rest` of the groups still to come, `c + min rest > max_cost`, `l + min rest > max_loss` or
`l + rest(max_cost - c) > max_loss`.
"""

from __future__ import annotations

import numpy as np

from ...errors import InvalidInput
from .hulls import hull_steps
from .problem import BoolArray, FloatArray, IntArray, Problem
from .reduce import undominated
from .sums import staircase
from .verify import UNIT

MAX_POINTS = 2_000_000


def front_labels(
    problem: Problem, max_points: int = MAX_POINTS, max_cost: float = np.inf, max_loss: float = np.inf
) -> IntArray:
    """Configurations of all non-dominated points of the loss and the first row.

    Args:
        problem: The first row is the cost.
        max_points: Most labels to keep.
        max_cost: Only points up to this cost are wanted.
        max_loss: Only points up to this loss are wanted.

    Returns:
        Shape [points, groups], cost ascending; possibly with a few points beyond what is wanted.

    Raises:
        InvalidInput: If there are more labels.
    """
    allowed = undominated(problem.loss, problem.rows[:1], problem.allowed)
    losses, costs = _from_zero(problem.loss, allowed), _from_zero(problem.rows[0], allowed)
    order = np.argsort(-np.where(allowed, costs, 0.0).max(axis=1), kind="stable")
    error = 2.0 * len(order) * UNIT
    cost, loss = np.zeros(1), np.zeros(1)
    history: list[tuple[int, IntArray, IntArray]] = []
    window = _Window(problem, allowed, costs, losses, order, max_cost, max_loss)
    for group in order.tolist():
        offered = np.flatnonzero(allowed[group]).astype(np.int32)
        costs_next = (cost + costs[group, offered][:, None]).ravel()  # sorted runs, one per choice
        losses_next = (loss + losses[group, offered][:, None]).ravel()
        wanted = window.holds(len(history), costs_next, losses_next)
        keep = staircase(costs_next[wanted], losses_next[wanted], error, error)
        keep = keep if wanted.all() else np.flatnonzero(wanted)[keep]
        if len(keep) > max_points:
            raise InvalidInput(
                f"the front has more than {max_points} labels after {len(history) + 1} of {len(order)} groups; "
                "give a tolerance, or allow more with max_points"
            )
        history.append((group, (keep % len(cost)).astype(np.int32), offered[keep // len(cost)]))
        cost, loss = costs_next[keep], losses_next[keep]
    return _unwind(history, len(cost))


class _Window:
    """The part of the front that is wanted, and which labels can still reach it (tables that start at 0)."""

    def __init__(
        self,
        problem: Problem,
        allowed: BoolArray,
        costs: FloatArray,
        losses: FloatArray,
        order: IntArray,
        max_cost: float,
        max_loss: float,
    ) -> None:
        room = []
        for table, limit in ((problem.rows[0], max_cost), (problem.loss, max_loss)):
            least = np.where(allowed, table, np.inf).min(axis=1)
            rounding = 2.0**-44 * (abs(limit) + float(np.abs(least).sum()))
            room.append(limit - float(least.sum()) + (rounding if np.isfinite(limit) else 0.0))
        self.cost, self.loss = room
        self.steps = hull_steps(losses, costs, allowed)
        self.start_loss = losses[np.arange(len(losses)), self.steps.start]
        self.place = np.empty(len(order), dtype=np.int64)
        self.place[order] = np.arange(len(order))
        self.order = order

    def holds(self, done: int, cost: FloatArray, loss: FloatArray) -> BoolArray:
        """Labels that some completion keeps inside, after groups `order[: done + 1]`."""
        inside: BoolArray = (cost <= self.cost) & (loss <= self.loss)
        if np.isfinite(self.cost) and np.isfinite(self.loss):
            rest = self.place[self.steps.group] > done
            most = float(self.start_loss[self.order[done + 1 :]].sum())
            sizes = np.append(0.0, np.cumsum(self.steps.cost[rest]))
            values = np.append(most, most + np.cumsum(self.steps.loss[rest]))
            inside &= loss + np.interp(self.cost - cost, sizes, values) <= self.loss + 1e-9 * most
        return inside


def front_labels_many(problem: Problem, max_points: int = MAX_POINTS) -> IntArray | None:
    """Configurations of all non-dominated points of the loss and all rows.

    The dominance filter is moocore's (C. M. Fonseca et al., O(n log n) for three objectives).

    Args:
        problem: Every row is a cost.
        max_points: Most labels to keep.

    Returns:
        Shape [points, groups], or None if there are more labels.
    """
    import moocore

    allowed = undominated(problem.loss, problem.rows, problem.allowed)
    tables = np.stack([_from_zero(table, allowed) for table in (problem.loss, *problem.rows)])
    order = np.argsort(-np.where(allowed, tables[1], 0.0).max(axis=1), kind="stable")
    values = np.zeros((1, len(tables)))
    history: list[tuple[int, IntArray, IntArray]] = []
    for group in order.tolist():
        offered = np.flatnonzero(allowed[group]).astype(np.int32)
        longer = (values[None] + tables[:, group, offered].T[:, None, :]).reshape(-1, len(tables))
        keep = np.flatnonzero(moocore.is_nondominated(_rounded(longer), keep_weakly=False))
        if len(keep) > max_points:
            return None
        history.append((group, (keep % len(values)).astype(np.int32), offered[keep // len(values)]))
        values = longer[keep]
    return _unwind(history, len(values))


def _rounded(values: FloatArray) -> FloatArray:
    """Drops the last bits, so that sums that differ by rounding alone compare as equal."""
    mantissa, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.rint(np.ldexp(mantissa, 44)), exponent - 44))


def _from_zero(table: FloatArray, allowed: BoolArray) -> FloatArray:
    """Subtracts every group's smallest entry: partial sums then keep their relative accuracy."""
    least = np.where(allowed, table, np.inf).min(axis=1)
    return np.where(allowed, table - least[:, None], 0.0)


def _unwind(history: list[tuple[int, IntArray, IntArray]], count: int) -> IntArray:
    picked = np.empty((count, len(history)), dtype=np.int32, order="F")
    label: IntArray = np.arange(count)
    for group, parent, choice in reversed(history):
        picked[:, group] = choice[label]
        label = parent[label]
    return picked
