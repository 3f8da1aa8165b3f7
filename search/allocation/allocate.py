"""The best configuration inside one or more budgets, with a proof."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from ...errors import InfeasibleBudget
from .milp import solve_milp
from .problem import IntArray, Problem, build
from .result import GAP_REACHED, OPTIMAL, TIME_LIMIT, Allocation, relative_gap
from .verify import chosen_sum, meets, row_values, slack


def allocate(
    loss: ArrayLike,
    costs: Mapping[str, ArrayLike],
    budgets: Mapping[str, float],
    ties: Iterable[Iterable[int]] | None = None,
    *,
    allowed: ArrayLike | None = None,
    pins: Mapping[int, int] | None = None,
    time_limit: float | None = None,
    gap: float = 0.0,
) -> Allocation:
    """Chooses one column per site so that the summed loss is smallest and every summed cost is within its budget.

    Args:
        loss: Loss of every choice, shape [sites, choices]; any finite scale and sign.
        costs: Name to cost table [sites, choices]; or [steps, sites, choices], whose budget holds at every step.
        budgets: Name to the largest sum allowed; a cost without a budget is only reported.
        ties: Groups of sites that must take the same choice.
        allowed: Boolean [sites, choices]: what is offered; entries of the tables elsewhere are ignored.
        pins: Site to the choice it must take.
        time_limit: Seconds after which the incumbent is returned with its gap.
        gap: Relative gap that is good enough; 0 asks for a proven optimum.

    Returns:
        The configuration with objective, bound, gap, status, seconds and summed costs.

    Raises:
        InfeasibleBudget: If nothing meets the budgets; the message names what can be reached.
        InvalidInput: If a table, tie, pin or budget cannot be used.
    """
    start = time.perf_counter()
    problem = build(loss, costs, budgets, ties, allowed=allowed, pins=pins)
    _check_each_budget(problem)
    answer = solve_milp(problem, time_limit, gap)
    if answer.picked is None or not meets(problem, answer.picked):
        raise InfeasibleBudget("no configuration meets these budgets together; relax at least one")
    objective = chosen_sum(problem.loss, answer.picked)
    bound = objective if objective - answer.bound <= slack(problem.loss) + 1e-9 * abs(objective) else answer.bound
    status = TIME_LIMIT if answer.timed_out else OPTIMAL if gap == 0 else GAP_REACHED
    if status == OPTIMAL:
        bound = objective
    return Allocation(
        choice=problem.expand(answer.picked),
        objective=objective,
        bound=bound,
        gap=relative_gap(objective, bound),
        status=status,
        seconds=time.perf_counter() - start,
        costs=named_costs(problem, answer.picked),
    )


def named_costs(problem: Problem, picked: IntArray) -> dict[str, float]:
    """Sum of every cost by name; the maximum for a name with several rows.

    Args:
        problem: The problem.
        picked: Choice per group.

    Returns:
        Name to value, in the order of the rows.
    """
    found: dict[str, float] = {}
    for name, value in zip(problem.names, row_values(problem, picked).tolist(), strict=True):
        found[name] = max(found.get(name, -np.inf), value)
    return found


def _check_each_budget(problem: Problem) -> None:
    for row, limit, name in zip(problem.rows, problem.limits, problem.names, strict=True):
        smallest = np.where(problem.allowed, row, np.inf).argmin(axis=1)
        reachable = chosen_sum(row, smallest)
        if reachable > limit + slack(row):
            raise InfeasibleBudget(
                f"budget {name} = {limit:.6g} cannot be met: the smallest reachable value is {reachable:.6g}"
            )
