"""The survivors of a search: what is measured again, on data that neither scores nor search have seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..space import Configuration
from .measurements import Measurements
from .pareto import non_dominated
from .problem import FLOAT, Problem, Proposal, spread


def survivors(problem: Problem, measurements: Measurements, most: int | None = None) -> list[Proposal]:
    """The float model, the uniform configurations, and what is not dominated on the validation data.

    Args:
        problem: prices, objectives, constraints.
        measurements: on the validation data.
        most: candidates beside the uniform ones: the best in quality where there are constraints, else spread over the
            front; ``None``: the whole front and the two best within the constraints.

    Returns:
        The float model first.
    """
    measured, uniforms = measurements.measured(), set(problem.space.uniforms().values())
    keep = pareto(problem, measurements, measured)
    front = [found for found, on_front in zip(measured, keep, strict=True) if on_front and found not in uniforms]
    best = sorted((found for found in measured if _meets(problem, found)), key=measurements.quality)
    kept = list(dict.fromkeys([*best[:2], *front]))
    if most is not None and problem.constraints:
        mixed = [found for found in best if found not in uniforms]
        kept = mixed[:most]
    elif most is not None and front:
        costs = problem.totals(np.stack([problem.space.choice(each) for each in front]), problem.price_objectives[0])
        order = np.argsort(costs, kind="stable")  # the cheapest first, then the dearest, then between
        kept = [front[order[index]] for index in spread(costs[order], most, np.zeros(len(front), dtype=bool))]
    baselines = [found for found in measured if found in uniforms]
    return [Proposal(found, "survivor") for found in dict.fromkeys([FLOAT, *baselines, *kept])]


def pareto(problem: Problem, measurements: Measurements, measured: Sequence[Configuration]) -> np.ndarray:
    """Which measured configurations are not dominated in the objectives: boolean [configurations]."""
    if not measured:
        return np.zeros(0, dtype=bool)
    choices = np.stack([problem.space.choice(found) for found in measured])
    prices = [problem.totals(choices, name) for name in problem.price_objectives]
    return non_dominated(np.column_stack([[measurements.quality(found) for found in measured], *prices]))


def _meets(problem: Problem, configuration: Configuration) -> bool:
    return bool(problem.meets(problem.space.choice(configuration)[None])[0])
