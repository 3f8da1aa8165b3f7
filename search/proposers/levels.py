"""The budget that an evolution works at: the constraints, or without any the members of the front in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..groups import IntArray
from ..pareto import non_dominated
from ..problem import Problem
from .proposer import Evaluated


@dataclass(frozen=True, eq=False)
class Level:
    """Budgets, and the best measured configuration within them.

    Attributes:
        budgets: price -> largest total.
        parent: int64 [sites], or ``None`` if nothing measured meets them.
    """

    budgets: dict[str, float]
    parent: IntArray | None


class Levels:
    """Gives one level after the other.

    With constraints there is one level: they themselves. Without, every member of the measured front is one: its
    prices are the budgets (so a child that is better dominates it), and the front is gone through in turn, the
    cheapest first. Before anything was measured the uniform configurations are the levels.

    Args:
        problem: objectives and constraints.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._turn = 0

    def take(self, told: Sequence[Evaluated]) -> Level:
        """The level whose turn it is.

        Args:
            told: what is measured, of formats that are offered.
        """
        if self.problem.constraints:
            best = min((each for each in told if each.feasible), key=lambda each: each.quality, default=None)
            return Level(self.problem.constraints, None if best is None else best.choice)
        front = measured_front(told)
        self._turn += 1
        if front:
            chosen = front[(self._turn - 1) % len(front)]
            return Level(self._prices(chosen.choice), chosen.choice)
        uniforms = list(dict.fromkeys(self.problem.space.uniforms().values()))
        start = self.problem.space.choice(uniforms[(self._turn - 1) % len(uniforms)])
        return Level(self._prices(start), None)

    def count(self, told: Sequence[Evaluated]) -> int:
        """How many levels there are now."""
        if self.problem.constraints:
            return 1
        return len(measured_front(told)) or len(set(self.problem.space.uniforms().values()))

    def _prices(self, choice: IntArray) -> dict[str, float]:
        return {name: float(self.problem.totals(choice[None], name)[0]) for name in self.problem.price_objectives}


def measured_front(told: Sequence[Evaluated]) -> list[Evaluated]:
    """The feasible ones that no other feasible one dominates in quality and price objectives, the cheapest first."""
    feasible = [each for each in told if each.feasible]
    if not feasible:
        return []
    points = np.array([[*each.costs, each.quality] for each in feasible])
    kept = [feasible[index] for index in np.flatnonzero(non_dominated(points))]
    return sorted(kept, key=lambda each: (*each.costs.tolist(), each.quality, each.choice.tobytes()))
