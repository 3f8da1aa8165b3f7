"""An allocation checked in exact rational arithmetic, independently of how it was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from ...errors import InvalidInput
from .multipliers import best_multipliers
from .problem import FloatArray, Problem, build
from .result import Allocation
from .verify import slack


@dataclass(frozen=True)
class Certificate:
    """What exact arithmetic says of an allocation.

    Args:
        objective: Exact loss of the configuration.
        costs: Exact sums.
        feasible: Every budget holds (up to the rounding error of a float64 sum, see `verify.slack`).
        dual_bound: A lower bound of the loss of every configuration that meets the budgets: the Lagrangian
            `sum_g min_j (loss + lam cost) - lam budget`, exact for the multipliers below.
        multipliers: Price of every budget in loss per unit.
    """

    objective: Fraction
    costs: Mapping[str, Fraction]
    feasible: bool
    dual_bound: Fraction
    multipliers: Mapping[str, float]

    @property
    def slack_of_bound(self) -> Fraction:
        """`objective - dual_bound`: what adding up prices alone cannot prove, and the enumeration had to close."""
        return self.objective - self.dual_bound


def certify(
    allocation: Allocation,
    loss: ArrayLike,
    costs: Mapping[str, ArrayLike],
    budgets: Mapping[str, float],
    ties: object = None,
    *,
    allowed: ArrayLike | None = None,
    pins: Mapping[int, int] | None = None,
) -> Certificate:
    """Recomputes an allocation's sums and a dual bound with fractions.

    Args:
        allocation: What `allocate` returned for these arguments.
        loss: Shape [sites, choices].
        costs: Name to [sites, choices].
        budgets: By name.
        ties: Groups of sites.
        allowed: What is offered.
        pins: Site to choice.

    Returns:
        The exact figures.

    Raises:
        InvalidInput: If the configuration breaks a tie, a pin or `allowed`, or does not fit the tables.
    """
    problem = build(loss, costs, budgets, ties, allowed=allowed, pins=pins)  # type: ignore[arg-type]
    if len(allocation.choice) != len(problem.group):
        raise InvalidInput(f"the allocation has {len(allocation.choice)} sites, the losses {len(problem.group)}")
    picked = np.zeros(len(problem.loss), dtype=np.int64)
    picked[problem.group] = allocation.choice
    every = np.arange(len(picked))
    if (picked[problem.group] != allocation.choice).any() or not problem.allowed[every, picked].all():
        raise InvalidInput("the configuration breaks a tie, a pin or takes a choice that is not offered")
    sums = [sum(map(Fraction, row[every, picked].tolist()), Fraction()) for row in problem.rows]
    rows = np.flatnonzero(np.isfinite(problem.limits)).tolist()
    feasible = all(
        sums[row] <= Fraction(problem.limits[row]) + Fraction(slack(problem.rows[row], problem.limits[row]))
        for row in rows
    )
    dual = best_multipliers(np.where(problem.allowed, problem.loss, np.inf), problem.rows[rows], problem.limits[rows])
    named: dict[str, Fraction] = {}
    for name, value in zip(problem.names, sums, strict=True):
        named[name] = max(named.get(name, value), value)
    return Certificate(
        objective=sum(map(Fraction, problem.loss[every, picked].tolist()), Fraction()),
        costs=named,
        feasible=feasible,
        dual_bound=_exact_dual(problem, rows, dual.multipliers),
        multipliers={problem.names[row]: float(lam) for row, lam in zip(rows, dual.multipliers, strict=True)},
    )


def _exact_dual(problem: Problem, rows: list[int], multipliers: FloatArray) -> Fraction:
    prices = [Fraction(float(price)) for price in multipliers]
    total = -sum((p * Fraction(problem.limits[row]) for p, row in zip(prices, rows, strict=True)), Fraction())
    for group, offered in enumerate(problem.allowed):
        total += min(
            Fraction(problem.loss[group, choice])
            + sum(
                (p * Fraction(problem.rows[row, group, choice]) for p, row in zip(prices, rows, strict=True)),
                Fraction(),
            )
            for choice in np.flatnonzero(offered).tolist()
        )
    return total
