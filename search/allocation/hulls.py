"""Lower convex hulls of the choices of every group, and the linear relaxation that they solve.

For one row the linear relaxation of the multiple-choice knapsack is solved by a greedy rule: walk along the hull steps
of all groups in the order of their slope until the budget is reached (E. Zemel, The linear multiple choice knapsack
problem, Operations Research 28, 1980; P. Sinha and A. Zoltners, The multiple-choice knapsack problem, Operations
Research 27, 1979).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .problem import BoolArray, FloatArray, IntArray

_CHUNK = 4_000_000


@dataclass(frozen=True, eq=False)
class HullSteps:
    """The steps along the decreasing part of every group's lower hull, steepest first.

    Args:
        start: The cheapest hull choice of every group (smallest loss among equals), shape [groups].
        group: Group of each step, shape [steps].
        before: Choice that the step leaves.
        after: Choice that it takes.
        slope: Change of loss per unit of cost, negative and ascending.
        cost: Rise of the cost, positive.
        loss: Change of the loss, negative.
    """

    start: IntArray
    group: IntArray
    before: IntArray
    after: IntArray
    slope: FloatArray
    cost: FloatArray
    loss: FloatArray


def hull_steps(loss: FloatArray, cost: FloatArray, allowed: BoolArray) -> HullSteps:
    """Finds every group's hull and merges the steps by slope.

    A choice is on the lower hull if the steepest way to it from a cheaper choice is steeper than every way on to a
    dearer one. All pairs are compared at once: O(groups choices^2).

    Args:
        loss: Shape [groups, choices].
        cost: Shape [groups, choices].
        allowed: Shape [groups, choices]; at least one per group.

    Returns:
        The steps of all groups.
    """
    groups, choices = loss.shape
    masked_loss = np.where(allowed, loss, np.inf)
    masked_cost = np.where(allowed, cost, np.inf)
    order = _lexical_order(masked_cost, masked_loss)
    losses = np.take_along_axis(masked_loss, order, axis=1)
    costs = np.take_along_axis(masked_cost, order, axis=1)
    before_best = np.minimum.accumulate(losses, axis=1)
    useful = np.isfinite(losses)
    useful[:, 1:] &= losses[:, 1:] < before_best[:, :-1]
    on_hull = useful.copy()
    stride = max(1, _CHUNK // (choices * choices))
    later = np.triu(np.ones((choices, choices), dtype=np.bool_), 1)
    for first in range(0, groups, stride):
        part = slice(first, first + stride)
        valid = useful[part, :, None] & useful[part, None, :] & later
        with np.errstate(invalid="ignore", divide="ignore"):
            rise = losses[part, None, :] - losses[part, :, None]
            run = costs[part, None, :] - costs[part, :, None]
            slope = np.where(valid, rise / run, np.nan)
        steepest_in = np.where(valid, slope, -np.inf).max(axis=1)
        steepest_out = np.where(valid, slope, np.inf).min(axis=2)
        on_hull[part] &= steepest_in < steepest_out
    row, column = np.nonzero(on_hull)
    same = row[1:] == row[:-1]
    first_of = np.concatenate([[True], ~same])
    start = order[row[first_of], column[first_of]]
    group = row[1:][same]
    at, to = column[:-1][same], column[1:][same]
    delta_cost = costs[group, to] - costs[group, at]
    delta_loss = losses[group, to] - losses[group, at]
    slope = delta_loss / delta_cost
    position = np.argsort(slope, kind="stable")
    return HullSteps(
        start=start.astype(np.int64),
        group=group[position],
        before=order[group, at][position].astype(np.int64),
        after=order[group, to][position].astype(np.int64),
        slope=slope[position],
        cost=delta_cost[position],
        loss=delta_loss[position],
    )


def prefixes(start: IntArray, group: IntArray, after: IntArray, at: IntArray) -> IntArray:
    """Configurations after the first `at[p]` steps.

    Args:
        start: Shape [groups].
        group: Group of every step.
        after: What every step chooses.
        at: Ascending numbers of steps, shape [points].

    Returns:
        Shape [points, groups].
    """
    order = np.argsort(group, kind="stable")
    begins = np.searchsorted(group[order], np.arange(len(start)))
    values = np.insert(after[order], begins, start).astype(np.int32)
    first = np.insert(np.searchsorted(at, order + 1), begins, 0)  # the point from which on a value holds
    until = np.append(first[1:], len(at))
    until[np.append(begins[1:] + np.arange(1, len(start)), len(first)) - 1] = len(at)
    return np.repeat(values, until - first).reshape(len(start), len(at)).T


def _lexical_order(first: FloatArray, second: FloatArray) -> IntArray:
    """Order within every group by `first`, then by `second`."""
    order = np.argsort(second, axis=1, kind="stable")
    then = np.argsort(np.take_along_axis(first, order, axis=1), axis=1, kind="stable")
    return np.take_along_axis(order, then, axis=1)
