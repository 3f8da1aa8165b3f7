"""From everything a caller can say to one problem: loss terms, uncertain prices, repairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ...errors import InvalidInput
from .monotone import Repair, monotone_repair
from .problem import Chance, FloatArray, PairTables, Problem, build
from .uncertain import normal_quantile

Correlation = Literal["independent", "full"]


@dataclass(frozen=True, eq=False)
class Program:
    """A problem with the names of the caller.

    Args:
        problem: What to solve.
        costs: Names of the costs.
        terms: Names of the loss terms, if there are several.
        repairs: What a monotone repair changed; None if none was asked for.
    """

    problem: Problem
    costs: tuple[str, ...]
    terms: tuple[str, ...]
    repairs: Sequence[Repair] | None


def assemble(
    loss: ArrayLike | Mapping[str, ArrayLike],
    costs: Mapping[str, ArrayLike],
    budgets: Mapping[str, float],
    ties: Iterable[Iterable[int]] | None,
    *,
    allowed: ArrayLike | None = None,
    pins: Mapping[int, int] | None = None,
    weights: Mapping[str, float] | None = None,
    pair_loss: PairTables | None = None,
    pair_costs: Mapping[str, PairTables] | None = None,
    std: Mapping[str, ArrayLike] | None = None,
    probability: float = 0.95,
    correlation: Correlation = "independent",
    monotone: str | None = None,
) -> Program:
    """Checks and combines the arguments of `allocate`, which explains them.

    Args:
        loss: One table or several terms.
        costs: Tables by name.
        budgets: By name.
        ties: Groups of sites.
        allowed: What is offered.
        pins: Site to choice.
        weights: Of loss terms.
        pair_loss: Pairwise losses.
        pair_costs: Pairwise costs.
        std: Standard deviations by cost.
        probability: Of keeping an uncertain budget.
        correlation: Of the errors.
        monotone: The cost by which losses should fall.

    Returns:
        The problem.

    Raises:
        InvalidInput: If something cannot be used.
    """
    terms = dict(loss) if isinstance(loss, Mapping) else {}
    if isinstance(loss, Mapping) and not terms:
        raise InvalidInput("loss is an empty mapping, expected at least one term")
    for name in [*(set(terms) & set(costs)), *(set(weights or {}) - set(terms))]:
        raise InvalidInput(
            f"loss term {name!r} is also a cost, or has a weight but no table; terms are {sorted(terms)}"
        )
    if monotone is not None and monotone not in costs:
        raise InvalidInput(f"monotone names {monotone!r}, which is no cost; costs are {sorted(costs)}")
    repairs: list[Repair] | None = None if monotone is None else []

    def repaired(table: ArrayLike) -> ArrayLike:
        if monotone is None or repairs is None:
            return table
        smooth, changes = monotone_repair(table, costs[monotone], allowed=allowed)
        repairs.extend(changes)
        return smooth

    if not isinstance(loss, Mapping):
        total = repaired(loss)
    else:
        terms = {name: repaired(table) for name, table in terms.items()}
        total = _weighted(terms, weights or {})
    tables: dict[str, ArrayLike] = {**costs, **terms}
    variances = _spread(tables, std or {}, probability, correlation)
    problem = build(
        total,
        {**tables, **variances},
        budgets,
        ties,
        allowed=allowed,
        pins=pins,
        pair_loss=pair_loss,
        pair_costs=pair_costs,
    )
    quantile = normal_quantile(probability) if std else 0.0
    chances = tuple(
        Chance(row, variance, quantile)
        for name in variances
        for row, variance in zip(_rows(problem, name.removesuffix(_VARIANCE)), _rows(problem, name), strict=True)
        if np.isfinite(problem.limits[row]) and quantile > 0
    )
    if correlation == "full":
        problem, chances = _correlated(problem, chances), ()
    return Program(replace(problem, chances=chances), tuple(costs), tuple(terms), repairs)


_VARIANCE = " (variance)"


def _weighted(terms: Mapping[str, ArrayLike], weights: Mapping[str, float]) -> FloatArray:
    total: FloatArray | float = 0.0
    for name, table in terms.items():
        weight = weights.get(name, 1.0)
        if not 0.0 <= weight < np.inf:
            raise InvalidInput(
                f"weight of loss term {name!r} is {weight}, expected a finite number that is not negative"
            )
        total = total + weight * np.asarray(table, dtype=np.float64)
    return np.asarray(total)


def _rows(problem: Problem, name: str) -> list[int]:
    return [row for row, known in enumerate(problem.names) if known == name]


def _spread(
    costs: Mapping[str, ArrayLike], std: Mapping[str, ArrayLike], probability: float, correlation: Correlation
) -> dict[str, ArrayLike]:
    """Rows whose sums are variances (independent errors) or standard deviations (full correlation)."""
    if correlation not in ("independent", "full"):
        raise InvalidInput(f"correlation is {correlation!r}, expected 'independent' or 'full'")
    found: dict[str, ArrayLike] = {}
    for name, values in std.items():
        normal_quantile(probability)
        if name not in costs:
            raise InvalidInput(f"std {name!r} has no cost of that name; costs are {sorted(costs)}")
        table = np.asarray(values, dtype=np.float64)
        if table.shape != np.shape(costs[name]):
            raise InvalidInput(f"std {name!r} has shape {table.shape}, expected {np.shape(costs[name])} as the cost")
        if (table < 0).any():
            raise InvalidInput(f"std {name!r} has negative entries")
        found[name + _VARIANCE] = table if correlation == "full" else table**2
    return found


def _correlated(problem: Problem, chances: Sequence[Chance]) -> Problem:
    """Adds the quantile times the standard deviation to the rows that have a budget."""
    rows, names, limits = problem.rows, list(problem.names), problem.limits.copy()
    for chance in chances:
        name = f"{problem.names[chance.row]} (quantile)"
        rows = np.concatenate([rows, (rows[chance.row] + chance.quantile * rows[chance.variance])[None]])
        names.append(name)
        limits = np.append(limits, limits[chance.row])
    return replace(problem, rows=rows, limits=limits, names=tuple(names))
