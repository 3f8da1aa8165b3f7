"""The best configuration inside one or more budgets, with a proof."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...errors import InfeasibleBudget, InvalidInput
from .infeasible import explain
from .problem import PairTables, Problem
from .program import Correlation, Program, assemble
from .result import GAP_REACHED, OPTIMAL, TIME_LIMIT, Allocation, Answer, relative_gap
from .solve import Method, solve
from .verify import named_costs, objective_of, row_quantile, slack


def allocate(
    loss: ArrayLike | Mapping[str, ArrayLike],
    costs: Mapping[str, ArrayLike],
    budgets: Mapping[str, float],
    ties: Iterable[Iterable[int]] | None = None,
    *,
    allowed: ArrayLike | None = None,
    pins: Mapping[int, int] | None = None,
    weights: Mapping[str, float] | None = None,
    tie_break: Sequence[str] = (),
    pair_loss: PairTables | None = None,
    pair_costs: Mapping[str, PairTables] | None = None,
    std: Mapping[str, ArrayLike] | None = None,
    probability: float = 0.95,
    correlation: Correlation = "independent",
    monotone: str | None = None,
    time_limit: float | None = None,
    gap: float = 0.0,
    method: Method = "auto",
) -> Allocation:
    """Chooses one column per site so that the summed loss is smallest and every summed cost is within its budget.

    min_x  sum_i loss[i, x_i] + sum_(i,j) pair_loss[i, j][x_i, x_j]   subject to   cost_c(x) <= budget_c for every c

    Args:
        loss: Loss of every choice, shape [sites, choices], any finite scale and sign; or several terms by name, whose
            weighted sum is minimised and each of which can have a budget too.
        costs: Name to cost table [sites, choices]; or [steps, sites, choices] (peak memory): the cost is then the
            largest sum over the steps.
        budgets: Name of a cost or loss term to the largest sum allowed; a cost without a budget is only reported.
        ties: Groups of sites that must take the same choice.
        allowed: Boolean [sites, choices]: what is offered; entries of the tables elsewhere are ignored (they may be
            NaN).
        pins: Site to the choice it must take.
        weights: Weight of every loss term, not negative; 1 where not given.
        tie_break: Names of costs or loss terms to make small in this order among configurations of equal loss.
        pair_loss: (site, site) to a table [choices, choices] that is added to the loss (inter-layer terms).
        pair_costs: Name of a cost to such tables that are added to it (conversion between formats).
        std: Name of a cost to the standard deviation of its entries, in the same shape.
        probability: With which every budget of an uncertain cost holds (each alone), at least 0.5.
        correlation: "independent" or "full": how the errors of one cost go together.
        monotone: Name of a cost: losses are first repaired so as not to rise with it; `details["repairs"]` lists every
            change.
        time_limit: Seconds after which the incumbent is returned with its gap.
        gap: Relative gap that is good enough; 0 asks for a proven optimum.
        method: "auto" (label search, then HiGHS where needed), "labels" or "highs".

    Returns:
        The configuration with objective, bound, gap, status, seconds and summed costs.

    Raises:
        InfeasibleBudget: If nothing meets the budgets; the message names what each could reach and which conflict.
        InvalidInput: If a table, tie, pin, budget or name cannot be used.

    Example:
        >>> import numpy as np
        >>> bits = np.array([[2.0, 4.0, 8.0]] * 3)
        >>> found = allocate(np.array([[9, 3, 0], [4, 1, 0], [8, 2, 1]]), {"bits": bits}, {"bits": 14})
        >>> found.choice.tolist(), found.objective, found.status, found.costs["bits"]
        ([1, 1, 1], 6.0, 'optimal', 12.0)
    """
    start = time.perf_counter()
    deadline = math.inf if time_limit is None else start + time_limit
    program = assemble(
        loss,
        costs,
        budgets,
        ties,
        allowed=allowed,
        pins=pins,
        weights=weights,
        pair_loss=pair_loss,
        pair_costs=pair_costs,
        std=std,
        probability=probability,
        correlation=correlation,
        monotone=monotone,
    )
    _check_names(program, tie_break)
    options: dict[str, Any] = {"deadline": deadline, "method": method}
    answer = solve(program.problem, gap=gap, **options)
    if answer.picked is None:
        raise refusal(program.problem, answer, **options)
    broken: list[str] = []
    for name in tie_break:
        answer, proven = _prefer(program.problem, answer, name, broken, **options)
        if not proven:
            broken.append(name)
    return finish(program, answer, start, deadline, {"tie_break_not_proven": tuple(broken)} if broken else {})


def refusal(problem: Problem, answer: Answer, *, deadline: float, method: Method) -> InfeasibleBudget:
    """The error for a problem without a configuration.

    Args:
        problem: The problem.
        answer: What the solver said.
        deadline: Value of `time.perf_counter` at which the explanation stops.
        method: How to solve parts of it.

    Returns:
        What to raise.
    """
    if not answer.infeasible:
        return InfeasibleBudget("the time limit passed before any configuration was found; allow more seconds")

    def feasible(part: Problem) -> bool | None:
        found = solve(part, gap=math.inf, deadline=deadline, method=method)
        return True if found.picked is not None else False if found.infeasible else None

    return explain(problem, feasible)


def finish(program: Program, answer: Answer, start: float, deadline: float, extra: Mapping[str, Any]) -> Allocation:
    """Puts an answer into the caller's terms.

    Args:
        program: What was solved.
        answer: With a configuration.
        start: When the call began.
        deadline: When it had to end.
        extra: More details.

    Returns:
        The allocation.
    """
    assert answer.picked is not None
    problem = program.problem
    values = named_costs(problem, answer.picked)
    details: dict[str, Any] = {**answer.details, **extra}
    if program.terms:
        details["losses"] = {name: values[name] for name in program.terms}
    if problem.chances:
        details["quantiles"] = {
            problem.names[c.row]: row_quantile(problem, c.row, answer.picked) for c in problem.chances
        }
    if program.repairs is not None:
        details["repairs"] = program.repairs
    bound = answer.bound
    reached = time.perf_counter() <= deadline or bound >= answer.objective
    return Allocation(
        choice=problem.expand(answer.picked),
        objective=answer.objective,
        bound=bound,
        gap=relative_gap(answer.objective, bound),
        status=OPTIMAL if answer.complete else GAP_REACHED if reached else TIME_LIMIT,
        seconds=time.perf_counter() - start,
        costs={name: values[name] for name in program.costs},
        details=MappingProxyType(details),
    )


def _check_names(program: Program, names: Sequence[str]) -> None:
    for name in names:
        if name not in program.problem.names:
            raise InvalidInput(f"tie_break {name!r} is not among {[*program.costs, *program.terms]}")


def _prefer(
    problem: Problem, answer: Answer, name: str, broken: Sequence[str], *, deadline: float, method: Method
) -> tuple[Answer, bool]:
    """Among configurations no worse than the answer, the one with the smallest `name`; and whether that is proven."""
    assert answer.picked is not None
    rows = [row for row, known in enumerate(problem.names) if known == name]
    if len(rows) > 1:
        raise InvalidInput(f"tie_break {name!r} is a maximum over steps; name a plain cost")
    objective = objective_of(problem, answer.picked)
    held = problem.with_row(problem.loss, objective + 2.0 * slack(problem.loss), "loss")  # equal up to rounding
    pairs = tuple(
        replace(p, rows={**p.rows, len(problem.rows): p.loss}, loss=p.rows.get(rows[0], np.zeros_like(p.loss)))
        for p in problem.pairs
    )
    found = solve(replace(held, loss=problem.rows[rows[0]], pairs=pairs), deadline=deadline, method=method)
    if found.picked is None:
        return answer, False
    kept = objective_of(problem, found.picked)
    better = replace(
        answer, picked=found.picked, objective=kept, bound=kept if answer.complete else min(answer.bound, kept)
    )
    return better, found.complete
