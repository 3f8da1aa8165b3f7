"""Prices with errors: a budget that holds with probability p.

For normal errors with standard deviations `s`, a sum of means `m` stays within `B` with probability `p` if

    sum m + z_p sqrt(sum s^2) <= B    (independent errors),        sum m + z_p sum s <= B    (fully correlated ones)

with the normal quantile `z_p` (A. Charnes and W. W. Cooper, Chance-constrained programming, Management Science 6,
1959). The second is linear. The first is concave in the variance `V = sum s^2`, which is linear in the choices: on an
interval [a, b] of variances the chord of the square root gives a linear row that admits everything feasible, and is
exact at both ends. Best-first branching on the variance of the relaxed optimum therefore ends with a proven optimum.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist

import numpy as np

from ...errors import InvalidInput
from .hulls import hull_steps
from .problem import FloatArray, IntArray, Problem
from .result import Answer
from .verify import meets, row_quantile, row_value

Box = tuple[tuple[float, float], ...]


def normal_quantile(probability: float) -> float:
    """The standard normal quantile.

    Args:
        probability: At least 0.5 and below 1.

    Returns:
        `z` with `P(Z <= z) = probability`.

    Raises:
        InvalidInput: If the probability is outside of that range.
    """
    if not 0.5 <= probability < 1.0:
        raise InvalidInput(f"probability is {probability}, expected at least 0.5 and below 1")
    return NormalDist().inv_cdf(probability)


def branch_on_variance(
    problem: Problem, solve_linear: Callable[[Problem], Answer], gap: float, deadline: float
) -> Answer:
    """Solves a problem with uncertain rows through linear relaxations.

    Args:
        problem: With `chances`.
        solve_linear: Solves a problem without chances.
        gap: Relative gap that is good enough.
        deadline: Value of `time.perf_counter` at which to stop.

    Returns:
        The best configuration with its bound; `details["relaxations"]` says how many were solved.
    """
    count = itertools.count()
    whole = tuple(_variance_range(problem, chance.variance) for chance in problem.chances)
    heap: list[tuple[float, int, Box]] = [(-math.inf, next(count), whole)]
    best: IntArray | None = None
    value, settled, solved, complete = math.inf, math.inf, 0, True
    while heap and heap[0][0] < value - gap * abs(value if best is not None else 0.0):
        bound, _, box = heapq.heappop(heap)
        if time.perf_counter() > deadline:
            complete, settled = False, min(settled, bound)
            break
        answer = solve_linear(_relaxed(problem, box))
        solved += 1
        low = max(bound, answer.bound)
        if answer.picked is None:
            if not answer.complete:
                complete, settled = False, min(settled, low)
        elif meets(problem, answer.picked):
            settled = min(settled, low)
            complete &= answer.complete
            if answer.objective < value:
                best, value = answer.picked, answer.objective
        elif low < value:
            for part in _split(problem, box, answer.picked):
                heapq.heappush(heap, (low, next(count), part))
    bound = min([settled, value, *(item[0] for item in heap)])
    complete &= not heap or heap[0][0] >= value
    return Answer(best, value, bound, complete, {"method": "branching on the variance", "relaxations": solved})


def _variance_range(problem: Problem, row: int) -> tuple[float, float]:
    table = problem.rows[row]
    low = np.where(problem.allowed, table, np.inf).min(axis=1).sum()
    high = np.where(problem.allowed, table, -np.inf).max(axis=1).sum()
    return float(low) * (1 - 1e-12), float(high) * (1 + 1e-12)


def _relaxed(problem: Problem, box: Box) -> Problem:
    relaxed = replace(problem, chances=())
    rows, limits = relaxed.rows.copy(), relaxed.limits.copy()
    extra: list[tuple[FloatArray, float]] = []
    for chance, (low, high) in zip(problem.chances, box, strict=True):
        slope = chance.quantile / (math.sqrt(low) + math.sqrt(high)) if high > 0 else 0.0
        rows[chance.row] = rows[chance.row] + slope * problem.rows[chance.variance]
        limits[chance.row] -= chance.quantile * math.sqrt(low) - slope * low
        limits[chance.variance] = high
        extra.append((-problem.rows[chance.variance], -low))
    relaxed = replace(relaxed, rows=rows, limits=limits)
    for table, limit in extra:
        relaxed = relaxed.with_row(table, limit, "variance")
    return relaxed


def _split(problem: Problem, box: Box, picked: IntArray) -> list[Box]:
    """Two boxes that meet where the relaxation was most wrong."""
    wrong, at, where = -math.inf, 0, 0.0
    for index, (chance, (low, high)) in enumerate(zip(problem.chances, box, strict=True)):
        variance = min(max(row_value(problem, chance.variance, picked), low), high)
        excess = row_quantile(problem, chance.row, picked) - problem.limits[chance.row]
        relative = excess / (abs(problem.limits[chance.row]) or 1.0)
        if relative > wrong:
            wrong, at, where = relative, index, variance
    low, high = box[at]
    if where - low <= 1e-12 * high or high - where <= 1e-12 * high:
        where = (low + high) / 2
    return [(*box[:at], part, *box[at + 1 :]) for part in ((low, where), (where, high))]


def smallest_quantile(problem: Problem, row: int) -> float:
    """Smallest `value + quantile sqrt(variance)` of a row over all configurations.

    It is concave and rising in mean and variance, so its minimum is a vertex of the hull of their sums.

    Args:
        problem: Without pairs on that row.
        row: Index of a row with a chance.

    Returns:
        The value.
    """
    chance = next(c for c in problem.chances if c.row == row)
    steps = hull_steps(problem.rows[chance.variance], problem.rows[row], problem.allowed)
    every = np.arange(len(steps.start))
    mean = problem.rows[row][every, steps.start].sum() + np.concatenate([[0.0], np.cumsum(steps.cost)])
    variance = problem.rows[chance.variance][every, steps.start].sum() + np.concatenate([[0.0], np.cumsum(steps.loss)])
    return float((mean + chance.quantile * np.sqrt(np.maximum(variance, 0.0))).min())
