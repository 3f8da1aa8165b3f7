"""Makes a problem smaller and its numbers harmless before it is solved; the optimum stays the same."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .problem import BoolArray, FloatArray, IntArray, Problem
from .verify import chosen_sum, row_slack

_CHUNK = 4_000_000


def power_of_two(values: FloatArray) -> int:
    """The exponent `e` for which `values * 2^-e` lies within [-1, 1].

    Args:
        values: Any finite array.

    Returns:
        The exponent; multiplying by `2^-e` has no rounding error.
    """
    return math.frexp(float(np.abs(values).max(initial=0.0)))[1]


def normalised(problem: Problem) -> tuple[Problem, int]:
    """Scales the loss and every row by a power of two, so that no product of them over- or underflows.

    Args:
        problem: The problem.

    Returns:
        The problem in units of `2^e` of loss, and `e`.
    """
    exponent = max([power_of_two(problem.loss), *(power_of_two(pair.loss) for pair in problem.pairs)])
    rows = [power_of_two(row) for row in problem.rows]
    pairs = tuple(
        replace(p, loss=np.ldexp(p.loss, -exponent), rows={r: np.ldexp(t, -rows[r]) for r, t in p.rows.items()})
        for p in problem.pairs
    )
    shift = -np.array(rows, dtype=np.int64)
    with np.errstate(over="ignore"):  # a limit far beyond its row binds nobody
        limits = np.ldexp(problem.limits, shift)
    return (
        replace(
            problem,
            loss=np.ldexp(problem.loss, -exponent),
            rows=np.ldexp(problem.rows, shift[:, None, None]),
            limits=limits,
            pairs=pairs,
        ),
        exponent,
    )


def binding_rows(problem: Problem) -> IntArray:
    """Rows with a limit that some configuration exceeds.

    Args:
        problem: The problem.

    Returns:
        Indices of rows.
    """
    if not len(problem.rows):
        return np.zeros(0, dtype=np.int64)
    most = np.where(problem.allowed, problem.rows, -np.inf).max(axis=2).sum(axis=1)
    for pair in problem.pairs:
        for row, table in pair.rows.items():
            most[row] += max(float(table.max()), 0.0)
    tolerance = 1e-9 * np.abs(problem.rows).max(axis=2).sum(axis=1)
    return np.flatnonzero(most + tolerance > problem.limits).astype(np.int64)


def undominated(loss: FloatArray, rows: FloatArray, allowed: BoolArray) -> BoolArray:
    """Drops choices of a group than which another one is no worse in the loss and in every row.

    Of equal choices the first stays. All pairs are compared: O(groups choices^2 rows).

    Args:
        loss: Shape [groups, choices].
        rows: Shape [rows, groups, choices].
        allowed: Shape [groups, choices].

    Returns:
        What is left of `allowed`.
    """
    groups, choices = loss.shape
    kept = allowed.copy()
    tables = [loss, *rows]
    earlier = np.tri(choices, k=-1, dtype=np.bool_)
    stride = max(1, _CHUNK // (choices * choices))
    for first in range(0, groups, stride):
        part = slice(first, first + stride)
        no_worse = allowed[part, None, :] & allowed[part, :, None]  # [group, judged, other]
        better = np.zeros_like(no_worse)
        for table in tables:
            block = table[part]
            no_worse &= block[:, None, :] <= block[:, :, None]
            better |= block[:, None, :] < block[:, :, None]
        kept[part] &= ~(no_worse & (better | earlier)).any(axis=2)
    return kept


def smallest_reachable(problem: Problem, row: int) -> float:
    """Smallest value of a row over all configurations, ignoring the other rows; pairs count with their least entry.

    Args:
        problem: The problem.
        row: Index of a row.

    Returns:
        The value; exact without pairs, a lower bound with them.
    """
    cheapest = np.where(problem.allowed, problem.rows[row], np.inf).argmin(axis=1)
    least = [
        float(p.rows[row][np.ix_(problem.allowed[p.first], problem.allowed[p.second])].min())
        for p in problem.pairs
        if row in p.rows
    ]
    return math.fsum([chosen_sum(problem.rows[row], cheapest.astype(np.int64)), *least])


def out_of_reach(problem: Problem) -> list[int]:
    """Rows whose limit no configuration keeps, whatever the others.

    Args:
        problem: The problem.

    Returns:
        Indices of rows.
    """
    return [
        row
        for row in np.flatnonzero(np.isfinite(problem.limits) | (problem.limits < 0)).tolist()
        if smallest_reachable(problem, row) > problem.limits[row] + row_slack(problem, row)
    ]
