"""One checked problem in, the best configuration with its proof out: chooses and chains the methods."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from .knapsack import MAX_LABELS, SearchOutcome, solve_knapsack
from .milp import solve_milp
from .multiknapsack import solve_multiknapsack
from .problem import IntArray, Problem
from .reduce import binding_rows, normalised, out_of_reach, undominated
from .result import Answer
from .uncertain import branch_on_variance
from .verify import meets, objective_of, row_slack

Method = Literal["auto", "labels", "highs"]
_MOST_ROWS = 8


def solve(
    problem: Problem,
    *,
    gap: float = 0.0,
    deadline: float = math.inf,
    method: Method = "auto",
    max_labels: int = MAX_LABELS,
) -> Answer:
    """Reduces a problem and solves it: by label search without pairs, by HiGHS otherwise or if the labels grow too
    many.

    Args:
        problem: What to solve.
        gap: Relative gap that is good enough.
        deadline: Value of `time.perf_counter` at which to stop.
        method: "auto", or one of the methods alone.
        max_labels: When the label search gives up.

    Returns:
        The answer, its numbers recomputed in compensated arithmetic.
    """
    if out_of_reach(problem):
        return Answer(None, math.inf, math.inf, True, {"method": "bounds"})
    if problem.chances:
        return branch_on_variance(
            problem,
            lambda relaxed: solve(relaxed, gap=gap, deadline=deadline, method=method, max_labels=max_labels),
            gap,
            deadline,
        )
    scaled, exponent = normalised(problem)
    rows = binding_rows(scaled)
    allowed = problem.allowed
    if not problem.pairs:
        allowed = undominated(scaled.loss, scaled.rows[rows], allowed)
    details: dict[str, Any] = {
        "groups": len(allowed),
        "choices_removed": int(problem.allowed.sum() - allowed.sum()),
        "binding_rows": sorted({problem.names[row] for row in rows.tolist()}),
    }
    scaled = replace(scaled, allowed=allowed)
    found: tuple[IntArray | None, float, bool] = (None, -math.inf, False)
    if not problem.pairs and method != "highs" and (len(rows) <= _MOST_ROWS or method == "labels"):
        outcome = _by_labels(scaled, rows, gap, deadline, max_labels)
        details |= {"method": "labels", "core": outcome.core, "relaxation_bound": math.ldexp(outcome.base, exponent)}
        found = (outcome.picked, outcome.base + outcome.bound, outcome.complete)
        if outcome.picked is not None and not meets(problem, outcome.picked):
            found = (None, outcome.base, False)
        elif outcome.picked is not None and outcome.possible is not None:
            scaled = replace(scaled, allowed=allowed & outcome.possible)  # what a better configuration can use
        objective = outcome.base + outcome.value
        enough = found[2] or (found[0] is not None and objective - found[1] <= gap * abs(objective))
        if enough or method == "labels":
            proven = math.inf if found[2] else found[1]  # the bound of a complete search is its objective
            return _answer(problem, found[0], proven, found[2], exponent, details)
    answer = solve_milp(replace(scaled, limits=_only(scaled, rows)), gap=gap, deadline=deadline, start=found[0])
    details["method"] = "highs" if "method" not in details else "labels, then highs"
    picked = answer.picked if answer.picked is not None and meets(problem, answer.picked) else found[0]
    complete = answer.complete and (gap == 0.0 or picked is None)
    return _answer(problem, picked, max(answer.bound, found[1]), complete, exponent, details)


def _only(problem: Problem, rows: IntArray) -> np.ndarray:
    limits = np.full(len(problem.limits), np.inf)
    limits[rows] = problem.limits[rows]
    return limits


def _by_labels(problem: Problem, rows: IntArray, gap: float, deadline: float, max_labels: int) -> SearchOutcome:
    limits = np.array([problem.limits[row] + row_slack(problem, row) / 2 for row in rows.tolist()])
    if not len(rows):
        picked = np.where(problem.allowed, problem.loss, np.inf).argmin(axis=1).astype(np.int64)
        return SearchOutcome(picked, 0.0, 0.0, objective_of(problem, picked), True, 0)
    limit = {"gap": gap, "deadline": deadline, "max_labels": max_labels}
    if len(rows) == 1:
        return solve_knapsack(problem.loss, problem.rows[rows[0]], float(limits[0]), problem.allowed, **limit)  # type: ignore[arg-type]
    return solve_multiknapsack(problem.loss, problem.rows[rows], limits, problem.allowed, **limit)  # type: ignore[arg-type]


def _answer(
    problem: Problem, picked: IntArray | None, bound: float, complete: bool, exponent: int, details: dict[str, Any]
) -> Answer:
    bound = math.ldexp(bound, exponent) if math.isfinite(bound) else bound
    if picked is None:
        return Answer(None, math.inf, math.inf if complete else bound, complete, details)
    objective = objective_of(problem, picked)
    return Answer(picked, objective, min(bound, objective), complete, details)
