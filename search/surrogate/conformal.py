r"""Intervals that cover: CV+ (the jackknife+ by folds) with normalised residuals, and widths that learn.

With predictions :math:`\mu_{-i}` of fits that did not see the fold of point i,
:math:`r_i = |z_i - \mu_{-i}(x_i)| / s_{-i}(x_i)` and the standard deviation s(x) of a prediction, the interval at x is

.. math:: \left[ q^-_\alpha \{ \mu_{-i}(x) - r_i s(x) \},\ q^+_\alpha \{ \mu_{-i}(x) + r_i s(x) \} \right]

where :math:`q^-` is the :math:`\lfloor \alpha (n+1) \rfloor`-th smallest and :math:`q^+` the
:math:`\lceil (1-\alpha)(n+1) \rceil`-th smallest value: Barber, Candès, Ramdas and Tibshirani 2021, Predictive
inference with the jackknife+ (arXiv:1905.02928), section 3 (CV+), with residuals normalised as by Lei et al. 2018 (JASA
113:1094). For exchangeable points it covers with probability 1 - 2 alpha at least, in practice 1 - alpha.

A search measures where it expects to win, so its points are not exchangeable. :class:`Coverage` therefore makes
intervals wider after a miss and a little narrower after a hit, in the proportion that is at rest at the coverage asked
for: quantile tracking (Angelopoulos, Candès and Tibshirani 2023, Conformal PID control, arXiv:2307.16895, section 2.1,
here on the logarithm of the width). In the long run it covers whatever the points are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from ...errors import InvalidInput

FloatArray = NDArray[np.float64]
_RATE = 0.15  # of the adaptation
_BOUNDS = (0.5, 20.0)  # of the factor


@dataclass(frozen=True)
class Coverage:
    """How often intervals covered what was measured afterwards.

    Attributes:
        asked: coverage asked for.
        factor: that the widths are multiplied with for now.
        covered: how many were inside.
        told: how many there were.
    """

    asked: float = 0.9
    factor: float = 1.0
    covered: int = 0
    told: int = 0

    @staticmethod
    def of(asked: float) -> Coverage:
        """Before anything was measured.

        Raises:
            InvalidInput: no coverage.
        """
        if not 0 < asked < 1:
            raise InvalidInput(f"coverage={asked}; it lies between 0 and 1, such as 0.9")
        return Coverage(asked)

    @property
    def share(self) -> float | None:
        """Of the predictions that covered; ``None`` before any was tested."""
        return self.covered / self.told if self.told else None

    def after(self, inside: NDArray[np.bool_]) -> Coverage:
        """With the outcome of further predictions, in order: boolean [n]."""
        factor = self.factor
        for hit in inside:
            step = self.asked - 1 if hit else self.asked
            factor = min(_BOUNDS[1], max(_BOUNDS[0], factor * math.exp(_RATE * step)))
        return replace(self, factor=factor, covered=self.covered + int(inside.sum()), told=self.told + len(inside))


def jackknife_plus(
    without: FloatArray, deviation: FloatArray, residuals: FloatArray, alpha: float
) -> tuple[FloatArray, FloatArray]:
    """Intervals at m configurations.

    Args:
        without: predictions there by the fits that did not see point i: [m, n].
        deviation: standard deviation of a prediction there: [m].
        residuals: absolute residual of every point that was left out, in units of its standard deviation: [n].
        alpha: miscoverage.

    Returns:
        Lower and upper ends [m]; infinite where n is too small for the level.
    """
    count = len(residuals)
    width = deviation[:, None] * residuals
    below, above = math.floor(alpha * (count + 1)), math.ceil((1 - alpha) * (count + 1))
    low = np.full(len(deviation), -np.inf)
    high = np.full(len(deviation), np.inf)
    if below >= 1:
        low = np.partition(without - width, below - 1, axis=1)[:, below - 1]
    if above <= count:
        high = np.partition(without + width, above - 1, axis=1)[:, above - 1]
    return low, high


def student_interval(
    mean: FloatArray, deviation: FloatArray, points: int, alpha: float
) -> tuple[FloatArray, FloatArray]:
    """Intervals while there are too few points for :func:`jackknife_plus`: Student's t with ``points - 1`` degrees."""
    width = float(student.ppf(1 - alpha / 2, max(1, points - 1))) * deviation
    return mean - width, mean + width
