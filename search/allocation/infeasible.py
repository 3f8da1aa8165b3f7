"""Says why budgets cannot be met: what each could reach alone, and which of them exclude each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...errors import InfeasibleBudget
from .problem import Problem
from .reduce import smallest_reachable
from .uncertain import smallest_quantile
from .verify import row_slack

Feasible = Callable[[Problem], bool | None]
"""Whether a problem has a configuration; None if that could not be decided in time."""


class BudgetConflict(InfeasibleBudget):
    """No configuration meets the budgets.

    Args:
        message: What to read.
        reachable: Every budget's smallest reachable value if it were the only one.
        conflict: Names of a smallest set of budgets that cannot be met together; one name if it fails alone.
    """

    def __init__(self, message: str, reachable: Mapping[str, float], conflict: Sequence[str]) -> None:
        super().__init__(message)
        self.reachable = dict(reachable)
        self.conflict = tuple(conflict)


def explain(problem: Problem, feasible: Feasible) -> BudgetConflict:
    """Finds what each budget reaches alone and an irreducible conflict, by leaving out one budget after the other.

    Args:
        problem: An infeasible problem.
        feasible: Decides parts of it.

    Returns:
        The error to raise.
    """
    names = [name for name in dict.fromkeys(problem.names) if _budget(problem, name) < math.inf]
    reachable = {name: _alone(problem, name) for name in names}
    budgets = {name: _budget(problem, name) for name in names}
    said = ", ".join(f"{name} >= {_number(reachable[name])} (budget {_number(budgets[name])})" for name in names)
    beyond = [name for name in names if reachable[name] > budgets[name] + _tolerance(problem, name)]
    if beyond:
        which = " and ".join(beyond)
        return BudgetConflict(
            f"no configuration meets the budget of {which}; smallest reachable value of each budget alone: {said}; "
            f"raise {which} or offer cheaper choices",
            reachable,
            beyond[:1],
        )
    conflict = list(names)
    for name in names:
        fewer = [other for other in conflict if other != name]
        if fewer and feasible(_only(problem, fewer)) is False:
            conflict = fewer
    which = " and ".join(conflict)
    alone = "each can be met alone" if len(conflict) > 1 else "its values cannot be combined"
    return BudgetConflict(
        f"no configuration meets the budgets of {which} together ({alone}); smallest reachable value of each budget "
        f"alone: {said}; raise one of {which} or offer cheaper choices",
        reachable,
        conflict,
    )


def _rows(problem: Problem, name: str) -> list[int]:
    return [row for row, known in enumerate(problem.names) if known == name]


def _budget(problem: Problem, name: str) -> float:
    return float(min(problem.limits[row] for row in _rows(problem, name)))


def _tolerance(problem: Problem, name: str) -> float:
    return max(row_slack(problem, row) for row in _rows(problem, name))


def _alone(problem: Problem, name: str) -> float:
    uncertain = {chance.row for chance in problem.chances}
    return max(
        smallest_quantile(problem, row) if row in uncertain else smallest_reachable(problem, row)
        for row in _rows(problem, name)
    )


def _only(problem: Problem, names: Sequence[str]) -> Problem:
    kept = np.array([name in names for name in problem.names])
    return replace(
        problem,
        loss=problem.rows[_rows(problem, names[0])[0]],
        pairs=tuple(replace(pair, loss=np.zeros_like(pair.loss)) for pair in problem.pairs),
        limits=np.where(kept, problem.limits, np.inf),
        chances=tuple(chance for chance in problem.chances if kept[chance.row]),
    )


def _number(value: float) -> str:
    return f"{value:.9g}"
