"""Sums that are right: every reported number is recomputed from the caller's tables with `math.fsum`.

`math.fsum` returns the correctly rounded sum of float64 values (J. R. Shewchuk, Adaptive precision floating-point
arithmetic and fast robust geometric predicates, 1997), so what is reported does not depend on the order in which a
solver added.

A budget counts as met up to the rounding error of an ordinary float64 sum, `n 2^-53 sum |cost|`: a budget that was
computed as the sum of a configuration's costs, in whatever order, admits that configuration. Where such sums have no
rounding error (integers, or any multiples of one power of two) the tolerance is exactly 0.
"""

from __future__ import annotations

import math

import numpy as np

from .problem import FloatArray, IntArray, Problem

UNIT = 2.0**-53


def chosen_sum(table: FloatArray, picked: IntArray) -> float:
    """Correctly rounded sum of the chosen entries.

    Args:
        table: Shape [groups, choices].
        picked: Shape [groups].

    Returns:
        `sum_g table[g, picked[g]]`.
    """
    return math.fsum(table[np.arange(len(picked)), picked].tolist())


def slack(table: FloatArray, limit: float = math.inf) -> float:
    """Rounding error that any order of adding one entry per group can make.

    It is `n 2^-53` times the sum of the absolute values, of which a sum of at most `limit` can have `limit` plus twice
    its negative part.

    Args:
        table: Shape [groups, choices].
        limit: What the sum is compared with.

    Returns:
        The tolerance under which two sums count as equal; 0 if the sums are exact in float64.
    """
    largest = float(np.abs(table).max(axis=1).sum())
    if largest == 0.0 or not math.isfinite(largest):
        return 0.0
    units = np.ldexp(table, 52 - math.frexp(largest)[1])  # all integers: every partial sum is exact
    if (units == np.rint(units)).all():
        return 0.0
    negative = 2.0 * float(np.maximum(-table, 0.0).max(axis=1).sum())
    return len(table) * UNIT * min(largest, abs(limit) + negative)


def objective_of(problem: Problem, picked: IntArray) -> float:
    """Loss of a configuration, correctly rounded.

    Args:
        problem: The problem.
        picked: Choice per group, shape [groups].

    Returns:
        The sum of additive and pairwise losses.
    """
    terms = problem.loss[np.arange(len(picked)), picked].tolist()
    return math.fsum(terms + [float(pair.loss[picked[pair.first], picked[pair.second]]) for pair in problem.pairs])


def row_value(problem: Problem, row: int, picked: IntArray) -> float:
    """Value of one row for a configuration, correctly rounded.

    Args:
        problem: The problem.
        row: Index of the row.
        picked: Choice per group, shape [groups].

    Returns:
        The sum of additive and pairwise terms.
    """
    terms = problem.rows[row][np.arange(len(picked)), picked].tolist()
    extra = [float(p.rows[row][picked[p.first], picked[p.second]]) for p in problem.pairs if row in p.rows]
    return math.fsum(terms + extra)


def row_slack(problem: Problem, row: int) -> float:
    """Rounding error of a row's sum.

    Args:
        problem: The problem.
        row: Index of the row.

    Returns:
        See `slack`.
    """
    limit = float(problem.limits[row]) if not problem.pairs else math.inf
    terms = [slack(problem.rows[row], limit), *(slack(p.rows[row]) for p in problem.pairs if row in p.rows)]
    if math.isfinite(limit) and any(chance.row == row for chance in problem.chances):
        terms.append(4 * UNIT * abs(limit))
    return math.fsum(terms)


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
        row_quantile(problem, row, picked) <= problem.limits[row] + row_slack(problem, row)
        for row in np.flatnonzero(np.isfinite(problem.limits)).tolist()
    )


def row_quantile(problem: Problem, row: int, picked: IntArray) -> float:
    """Value of a row, for an uncertain one with its safety margin.

    Args:
        problem: The problem.
        row: Index of the row.
        picked: Choice per group.

    Returns:
        `value + quantile sqrt(variance)`.
    """
    value = row_value(problem, row, picked)
    for chance in problem.chances:
        if chance.row == row:
            value += chance.quantile * math.sqrt(max(row_value(problem, chance.variance, picked), 0.0))
    return value


def named_costs(problem: Problem, picked: IntArray) -> dict[str, float]:
    """Sum of every cost by name; the maximum for a name with several rows.

    Args:
        problem: The problem.
        picked: Choice per group.

    Returns:
        Name to value, in the order of the rows.
    """
    found: dict[str, float] = {}
    for row, name in enumerate(problem.names):
        found[name] = max(found.get(name, -math.inf), row_value(problem, row, picked))
    return found
