"""The survivors of a search: what is measured again, on data that neither scores nor search have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..space import Configuration
from .measurements import Measurements
from .pareto import non_dominated
from .problem import FLOAT, Problem, Proposal, exact_allocations, spread
from .shrinkage import excess, excess_foretold, posterior_means

FINALISTS = 8
"""Most candidates of a search within constraints that are measured on held-out data, beside its measured front."""


def survivors(
    problem: Problem,
    measurements: Measurements,
    most: int | None = None,
    foretold: Mapping[Configuration, float] | None = None,
) -> list[Proposal]:
    """The float model, every rival (uniform configurations, exact allocations within the constraints), the finalists.

    Under constraints the finalists are the best by posterior mean (``shrinkage``): a candidate that its neighbours do
    not support has more to prove than one that they do.

    Args:
        problem: prices, objectives, constraints.
        measurements: on the validation data.
        most: finalists: the best where there are constraints, else spread over the front; ``None``: the whole front,
            and the ``FINALISTS`` best within the constraints.
        foretold: quality of candidates as the surrogate foretells them from the others.

    Returns:
        The float model first.
    """
    measured, uniforms = measurements.measured(), set(problem.space.uniforms().values())
    keep = pareto(problem, measurements, measured)
    front = [found for found, on_front in zip(measured, keep, strict=True) if on_front and found not in uniforms]
    exact = exact_allocations(problem, problem.constraints)
    rivals = [found for found in measured if found in uniforms or found in exact]
    if problem.constraints:
        best = _ordered(problem, measurements, [found for found in measured if found not in uniforms], foretold or {})
        kept = [*best[:FINALISTS], *front] if most is None else best[:most]
    elif most is not None and front:
        costs = problem.totals(np.stack([problem.space.choice(each) for each in front]), problem.price_objectives[0])
        order = np.argsort(costs, kind="stable")  # the cheapest first, then the dearest, then between
        kept = [front[order[index]] for index in spread(costs[order], most, np.zeros(len(front), dtype=bool))]
    else:
        kept = [*sorted(measured, key=measurements.quality)[:2], *front]
    return [Proposal(found, "survivor") for found in dict.fromkeys([FLOAT, *rivals, *kept])]


def _ordered(
    problem: Problem,
    measurements: Measurements,
    measured: Sequence[Configuration],
    foretold: Mapping[Configuration, float],
) -> list[Configuration]:
    """What meets the constraints, best first."""
    pairs = [(found, measurements.of(found)) for found in measured if _meets(problem, found)]
    known = [(found, each) for found, each in pairs if each is not None]
    base = measurements.of(FLOAT)
    if not known or base is None:
        return []
    told = None
    if all(found in foretold for found, _ in known):
        told = excess_foretold(base, [foretold[found] for found, _ in known])
    worth = posterior_means(told, [excess([each for _, each in known], base)])
    return [known[index][0] for index in np.argsort(worth, kind="stable")]


def pareto(problem: Problem, measurements: Measurements, measured: Sequence[Configuration]) -> np.ndarray:
    """Which measured configurations are not dominated in the objectives: boolean [configurations]."""
    if not measured:
        return np.zeros(0, dtype=bool)
    choices = np.stack([problem.space.choice(found) for found in measured])
    prices = [problem.totals(choices, name) for name in problem.price_objectives]
    return non_dominated(np.column_stack([[measurements.quality(found) for found in measured], *prices]))


def _meets(problem: Problem, configuration: Configuration) -> bool:
    return bool(problem.meets(problem.space.choice(configuration)[None])[0])
