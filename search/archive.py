r"""What a search has measured, and how good it is: the measured front, its hypervolume, the best within the budget.

The hypervolume is that of the normalised objectives. A price is scaled by the cheapest and the dearest configuration of
the space; the quality by

.. math:: t(q) = \frac{\log(\max(q - q_0, 0) + \delta) - a}{b - a}

with :math:`q_0` the quality of the float model, :math:`\delta` a thousandth of the worst excess of the uniform
configurations, and a, b such that t is 0 at :math:`q_0` and 1 at that worst one: qualities of quantized models spread
over orders of magnitude, and without the logarithm only the coarsest would count. The reference point is 1 in every
objective. The scale is fixed once the uniform configurations are measured, so that figures of one search compare.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..measurement import Measurement
from ..space import Configuration
from .allocation import hypervolume
from .groups import Groups
from .pareto import non_dominated
from .problem import Problem
from .proposers import Evaluated

FloatArray = NDArray[np.float64]
_AHEAD = 5  # under constraints: whoever joins so many best is credited
_VOLUME = 0.01  # weight of the hypervolume beside it
_FLOOR = 1e-3  # share of the worst excess below which qualities count as equal


class Archive:
    """The measured candidates of one search, in the order of their proposal.

    Args:
        problem: prices, objectives, constraints.
        float_quality: of the float model.
    """

    def __init__(self, problem: Problem, float_quality: float) -> None:
        self.problem = problem
        self.float_quality = float_quality
        self.evaluated: list[Evaluated] = []
        self._scale: tuple[float, float] | None = None
        self._volume: float | None = None  # of what was measured, once it is computed
        groups = Groups.of(problem.space)
        tables = [groups.sums(problem.cost(metric)) for metric in problem.price_objectives]
        bases = np.array([problem.prices[metric].base for metric in problem.price_objectives])
        self._low = bases + [np.nanmin(table, axis=1).sum() for table in tables]
        self._high = bases + [np.nanmax(table, axis=1).sum() for table in tables]

    def add(self, configuration: Configuration, origin: str, measurement: Measurement) -> tuple[Evaluated, float]:
        """Take in one measured configuration.

        Returns:
            It, and what it gained: hypervolume beyond what was known; with constraints above all, on the scale of the
            hypervolume, by how much its quality beats the fifth best that meets them. So whoever proposes what lies
            near the optimum is credited before those who fill the front of cheaper configurations, which is easy.
        """
        found = self.evaluation(configuration, origin, measurement)
        if self._scale is None:  # the baselines, before there is a scale
            self.evaluated.append(found)
            return found, 0.0
        volume, reached = self.hypervolume(), sorted(each.quality for each in self.evaluated if each.feasible)
        self.evaluated.append(found)
        self._volume = None
        gain = self.hypervolume() - volume
        if self.problem.constraints and found.feasible and reached:
            level = reached[min(_AHEAD, len(reached)) - 1]
            steps = self.scaled(np.array([level, found.quality]), np.stack([found.costs, found.costs]))[:, 0]
            gain = _VOLUME * gain + max(0.0, float(steps[0] - steps[1]))
        return found, max(gain, 0.0)

    def evaluation(
        self, configuration: Configuration, origin: str, measurement: Measurement, error: float = 0.0
    ) -> Evaluated:
        """A configuration with its prices; ``error`` is that of an estimate. Nothing is taken in."""
        choice = self.problem.space.choice(configuration)
        costs = np.array([self.problem.totals(choice[None], name)[0] for name in self.problem.price_objectives])
        feasible = bool(self.problem.meets(choice[None])[0])
        return Evaluated(configuration, choice, origin, measurement, costs, feasible, error)

    def fix_scale(self) -> None:
        """Scale qualities by what has been measured so far: the uniform configurations."""
        excess = max((found.quality - self.float_quality for found in self.evaluated), default=0.0)
        floor = _FLOOR * excess if excess > 0 else 1.0
        self._scale = floor, excess if excess > 0 else 1.0
        self._volume = None

    def scaled(self, qualities: FloatArray, costs: FloatArray) -> FloatArray:
        """Qualities [points] and price objectives [points, prices] as normalised objectives [points, 1 + prices]."""
        if self._scale is None:
            raise RuntimeError("fix_scale comes before the first normalised objective")
        floor, worst = self._scale
        excess = np.log(np.maximum(qualities - self.float_quality, 0.0) + floor)
        low, high = np.log(floor), np.log(worst + floor)
        width = np.where(self._high > self._low, self._high - self._low, 1.0)
        return np.column_stack([(excess - low) / (high - low), (costs - self._low) / width])

    def points(self) -> FloatArray:
        """Normalised objectives of what was measured and meets the constraints: [points, objectives]."""
        kept = [found for found in self.evaluated if found.feasible]
        if not kept:
            return np.zeros((0, 1 + len(self._low)))
        return self.scaled(np.array([found.quality for found in kept]), np.stack([found.costs for found in kept]))

    def hypervolume(self, extra: FloatArray | None = None) -> float:
        """Of what meets the constraints; ``extra`` points [points, objectives] added, both normalised."""
        if extra is None:
            if self._volume is None:
                self._volume = _hypervolume(self.points())
            return self._volume
        return _hypervolume(np.concatenate([self.points(), extra]))

    def best(self) -> Evaluated | None:
        """The best quality that meets the constraints."""
        return min((found for found in self.evaluated if found.feasible), key=lambda f: f.quality, default=None)

    def front(self) -> list[Evaluated]:
        """What is not dominated, by rising price."""
        if not self.evaluated:
            return []
        table = np.array([[found.quality, *found.costs] for found in self.evaluated])
        kept = [found for found, on_front in zip(self.evaluated, non_dominated(table), strict=True) if on_front]
        return sorted(kept, key=lambda found: (tuple(found.costs), found.configuration.digest))


def _hypervolume(points: FloatArray) -> float:
    return hypervolume(points, np.ones(points.shape[1])) if len(points) else 0.0
