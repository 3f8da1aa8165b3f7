"""Sums of many configurations at once in doubled precision."""

from __future__ import annotations

import numpy as np

from .problem import BoolArray, FloatArray, IntArray


def compensated_sums(table: FloatArray, picked: IntArray) -> FloatArray:
    """`sum_g table[g, picked[p, g]]` of every configuration p, with the rounding errors of the additions added back.

    TwoSum (D. E. Knuth, The art of computer programming 2, 4.2.2) gives the exact error of each addition; T. Ogita,
    S. M. Rump and S. Oishi (Accurate sum and dot product, SIAM J. Sci. Comput. 26, 2005, algorithm 4.4) show that the
    result is as if computed in twice the working precision.

    Args:
        table: Shape [groups, choices].
        picked: Shape [points, groups].

    Returns:
        Shape [points].
    """
    total = np.zeros(len(picked))
    error = np.zeros(len(picked))
    for group in range(table.shape[0]):
        term = table[group, picked[:, group]]
        result = total + term
        back = result - total
        error += (total - (result - back)) + (term - back)
        total = result
    return np.asarray(total + error)


def staircase(
    cost: FloatArray,
    loss: FloatArray,
    cost_error: float,
    loss_error: float,
    cost_floor: float = 0.0,
    loss_floor: float = 0.0,
) -> IntArray:
    """Points that no other one dominates, cost ascending; of equal points one stays.

    Costs and losses count as equal if they differ by less than the relative rounding error given (relative to the
    value itself: give both so that 0 is the smallest possible value).

    Args:
        cost: Shape [points], not negative.
        loss: Shape [points], not negative.
        cost_error: Relative.
        loss_error: Relative.
        cost_floor: Absolute error on top: what subtracting the smallest value has left.
        loss_floor: Likewise.

    Returns:
        Indices of the points.
    """
    order = np.lexsort((loss, cost))
    ascending = cost[order]
    fresh = ascending[1:] > ascending[:-1] * (1.0 + cost_error) + cost_floor
    equal: BoolArray = ~fresh & (loss[order][1:] < loss[order][:-1])
    if equal.any():  # nearly equal costs in the wrong order: the smaller loss goes first
        run = np.concatenate([[0], np.cumsum(fresh)])
        order = order[np.lexsort((loss[order], run))]
    falling = loss[order]
    better = np.ones(len(order), dtype=np.bool_)
    better[1:] = falling[1:] < np.minimum.accumulate(falling)[:-1] * (1.0 - loss_error) - loss_floor
    return order[better]
