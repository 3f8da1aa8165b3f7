"""The best few configurations that really differ: no-good and Hamming-distance cuts."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...errors import InvalidInput
from .allocate import finish, refusal
from .problem import FloatArray, IntArray, Problem
from .program import assemble
from .result import Allocation
from .solve import Method, solve


def diverse(
    loss: ArrayLike | Mapping[str, ArrayLike],
    costs: Mapping[str, ArrayLike],
    budgets: Mapping[str, float],
    count: int,
    ties: Iterable[Iterable[int]] | None = None,
    *,
    min_distance: int = 1,
    max_loss: float = math.inf,
    time_limit: float | None = None,
    gap: float = 0.0,
    method: Method = "auto",
    **options: Any,
) -> list[Allocation]:
    """The best configuration, then repeatedly the best that differs from all before at `min_distance` sites or more.

    With `min_distance` 1 these are the `count` best configurations (each cut excludes one: "no-good"). The cut for a
    configuration `y` is linear: `sum_i [x_i = y_i] <= sites - min_distance`.

    Args:
        loss: As for `allocate`.
        costs: As for `allocate`.
        budgets: As for `allocate`.
        count: How many configurations, at least 1.
        ties: Groups of sites that take the same choice; a tied group counts with all its sites.
        min_distance: Number of sites in which two of them differ at least.
        max_loss: Stop where the loss exceeds this.
        time_limit: Seconds for all together.
        gap: Relative gap that is good enough for each.
        method: As for `allocate`.
        options: As for `allocate`: allowed, pins, weights, pair_loss, pair_costs, std, probability, correlation,
            monotone.

    Returns:
        Up to `count` allocations, fewer if no more exist or the time is up; each is proven best given those before.

    Raises:
        InfeasibleBudget: If not even one meets the budgets.
        InvalidInput: If an argument cannot be used.
    """
    if count < 1 or min_distance < 1:
        raise InvalidInput(f"count is {count} and min_distance {min_distance}, expected at least 1 each")
    start = time.perf_counter()
    deadline = math.inf if time_limit is None else start + time_limit
    program = assemble(loss, costs, budgets, ties, **options)
    problem = program.problem
    found: list[Allocation] = []
    while len(found) < count:
        begin = time.perf_counter()
        answer = solve(problem, gap=gap, deadline=deadline, method=method)
        if answer.picked is None:
            if not found:
                raise refusal(problem, answer, deadline=deadline, method=method)
            break
        if answer.objective > max_loss and found:
            break
        found.append(finish(program, answer, begin, deadline, {}))
        problem = problem.with_row(
            _matches(problem, answer.picked), len(problem.group) - float(min_distance), "distance"
        )
    return found


def _matches(problem: Problem, picked: IntArray) -> FloatArray:
    """1 for every site of a group at the choice that it took."""
    table = np.zeros(problem.loss.shape)
    table[np.arange(len(picked)), picked] = np.bincount(problem.group, minlength=len(picked))
    return table
