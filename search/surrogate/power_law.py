r"""The surrogate: what quality an additive score foretells.

A power law, the simplest monotone map between a second-order score and a measured quality:

.. math:: \hat q = \exp(a) \cdot \max(s, \epsilon)^{b}, \qquad b \ge 0

fitted by least squares in the logarithms of everything measured so far. A monotone map leaves the optimum of the
additive model where it is; it turns scores into the units of the quality, with a spread that says how far to trust it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_TINY = 1e-30


@dataclass(frozen=True)
class PowerLaw:
    """A fitted map from score to quality.

    Attributes:
        intercept: a.
        slope: b, not negative.
        spread: standard deviation of the residuals in log quality.
        points: how many measurements it was fitted to.
        offset: quality of the float model, which no score predicts (an error rate, a loss).
    """

    intercept: float
    slope: float
    spread: float
    points: int
    offset: float = 0.0

    @staticmethod
    def fit(scores: np.ndarray, qualities: np.ndarray, offset: float = 0.0) -> PowerLaw | None:
        """Fit to measured pairs.

        Args:
            scores: additive scores [points].
            qualities: measured qualities [points], lower is better.
            offset: quality of the float model; the excess over it is what is fitted.

        Returns:
            The map, or ``None`` when fewer than three points have a positive score and a positive excess.
        """
        excess = qualities - offset
        usable = (scores > _TINY) & (excess > _TINY) & np.isfinite(scores) & np.isfinite(excess)
        if usable.sum() < 3:
            return None
        x, y = np.log(scores[usable]), np.log(excess[usable])
        slope = 0.0
        if np.ptp(x) > 0:
            slope = max(0.0, float(np.polyfit(x, y, 1)[0]))
        intercept = float(np.mean(y - slope * x))
        spread = float(np.std(y - intercept - slope * x, ddof=2))
        return PowerLaw(intercept, slope, spread, int(usable.sum()), offset)

    def predict(self, score: float) -> float:
        """The foretold quality of an additive score."""
        foretold: float = self.offset + math.exp(self.intercept) * max(score, _TINY) ** self.slope
        return foretold
