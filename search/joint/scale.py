r"""Objectives of a joint search on one scale, so that hypervolumes say something.

Quality spreads over orders of magnitude: 2 bits destroy a network, and what matters happens near the float one. With
:math:`f` the quality of the largest float network, :math:`u` that of the worst uniform configuration on it, :math:`g`
that of the smallest float network and :math:`w = \max(f, g) + u - f`, what the smallest may come to,

.. math:: t(q) = \log(\max(q - f + \delta / 2, 0) + \delta), \qquad \delta = (w - f) / 20

(an architecture may beat the largest one a little). Prices count by their logarithms, as budgets are asked for: half
the milliseconds are as much at 10 as at 1. The reference point is :math:`t(w)` and the dearest price of the baselines.
The scale is fixed with the baselines, so figures of a search compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..allocation import hypervolume

FloatArray = NDArray[np.float64]
_FLOOR = 20.0
_LEAST = 1e-6  # of the dearest price: what is cheaper counts as this


@dataclass(frozen=True)
class Scale:
    """How objectives are scaled.

    Attributes:
        float_quality: of the largest float network.
        worst: the worst quality that counts.
        cheapest: the least of each price objective [prices].
        dearest: the largest.
    """

    float_quality: float
    worst: float
    cheapest: FloatArray
    dearest: FloatArray

    @staticmethod
    def of(float_quality: float, qualities: Sequence[float], smallest: float, costs: FloatArray) -> Scale:
        """From the baselines.

        Args:
            float_quality: of the largest float network.
            qualities: of the uniform configurations on it.
            smallest: of the smallest float network.
            costs: price objectives of the points of both networks' fronts and of those configurations [points, prices].
        """
        lost = max([0.0, *(each - float_quality for each in qualities)])
        return Scale(float_quality, max(float_quality, smallest) + lost, costs.min(axis=0), costs.max(axis=0))

    def __call__(self, objectives: FloatArray) -> FloatArray:
        """Objectives [points, objectives], quality first, scaled: all between about 0 and 1 below the reference."""
        low, high = self._log(np.array([self.float_quality, self.worst]))
        width = high - low if high > low else 1.0
        least = np.maximum(self.cheapest, np.maximum(self.dearest, 1e-300) * _LEAST)
        wide = np.log(np.maximum(self.dearest, least) / least)
        prices = np.log(np.maximum(objectives[:, 1:], np.maximum(self.dearest, 1e-300) * _LEAST) / least) / np.where(
            wide > 0, wide, 1.0
        )
        return np.column_stack([(self._log(objectives[:, 0]) - low) / width, prices])

    @property
    def reference(self) -> FloatArray:
        """The reference point of hypervolumes: [objectives]; just beyond the baselines, so that they count too."""
        return np.full(1 + len(self.dearest), 1.01)

    def volume(self, objectives: FloatArray) -> float:
        """Hypervolume of points [points, objectives] as they are, not scaled."""
        return hypervolume(self(objectives), self.reference) if len(objectives) else 0.0

    def _log(self, quality: FloatArray) -> FloatArray:
        floor = (self.worst - self.float_quality) / _FLOOR or 1.0
        found: FloatArray = np.log(np.maximum(quality - self.float_quality + floor / 2, 0.0) + floor)
        return found
