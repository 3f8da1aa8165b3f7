"""Sums that are right: every reported number is recomputed from the caller's tables with `math.fsum`.

`math.fsum` returns the correctly rounded sum of float64 values (J. R. Shewchuk, Adaptive precision floating-point
arithmetic, 1997), so what is reported does not depend on the order in which a solver added.

A budget counts as met up to the rounding error of an ordinary float64 sum, `n 2^-52 sum |cost|`: a budget that was
computed as the sum of a configuration's costs, in whatever order, admits that configuration.
"""

from __future__ import annotations

import math

import numpy as np

from .problem import FloatArray, IntArray, Problem

UNIT = 2.0**-52


def chosen_sum(table: FloatArray, picked: IntArray) -> float:
    """Correctly rounded sum of the chosen entries.

    Args:
        table: Shape [groups, choices].
        picked: Shape [groups].

    Returns:
        `sum_g table[g, picked[g]]`.
    """
    return math.fsum(table[np.arange(len(picked)), picked].tolist())


def slack(table: FloatArray) -> float:
    """Rounding error that any order of adding one entry per group can make: `n 2^-52 sum_g max_j |table[g, j]|`.

    Args:
        table: Shape [groups, choices].

    Returns:
        The tolerance under which two sums count as equal.
    """
    return len(table) * UNIT * float(np.abs(table).max(axis=1).sum())


def row_values(problem: Problem, picked: IntArray) -> FloatArray:
    """Value of every row for a configuration.

    Args:
        problem: The problem.
        picked: Choice per group, shape [groups].

    Returns:
        Shape [rows].
    """
    return np.array([chosen_sum(row, picked) for row in problem.rows], dtype=np.float64)


def meets(problem: Problem, picked: IntArray) -> bool:
    """Whether a configuration is offered and keeps every row, in compensated arithmetic.

    Args:
        problem: The problem.
        picked: Choice per group, shape [groups].

    Returns:
        True if it does.
    """
    if not problem.allowed[np.arange(len(picked)), picked].all():
        return False
    return all(
        chosen_sum(row, picked) <= limit + slack(row)
        for row, limit in zip(problem.rows, problem.limits, strict=True)
        if np.isfinite(limit)
    )
