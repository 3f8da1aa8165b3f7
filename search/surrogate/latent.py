r"""The latent scale of a quality: where effects of formats add up, and noise is about equally large everywhere.

With the excess over the float model :math:`\epsilon = q - q_{\mathrm{float}} + c` the latent value is

.. math:: z = \log \epsilon - \log(1 - \epsilon / \epsilon_{\max})

The first term alone (:math:`\epsilon_{\max} = \infty`) is the usual case. The second describes saturation: a model that
answers at random cannot become worse; which ceiling is chosen is up to the fit. :math:`c = 0` unless the smallest
excess lies within its own standard error (an error rate may be that of the float model, or below it); then c lifts it
to one standard error above 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from ...measurement import Measurement

FloatArray = NDArray[np.float64]
_SIDES = 2 * 1.959964  # standard errors in the width of a 95 % interval
_LEAST = 1e-12  # smallest share of the range that counts as an excess
_SMALL = 0.5  # standard errors: a smaller estimated excess counts as so much
_OVERFLOW = 700.0
_CEILINGS = (1.1, 2.0)  # in units of the worst that was measured


@dataclass(frozen=True)
class Latent:
    """The map between a quality and its latent value; rising.

    Attributes:
        float_quality: quality of the float model.
        offset: c, in units of the quality, not negative.
        ceiling: largest excess, or infinity.
    """

    float_quality: float
    offset: float = 0.0
    ceiling: float = math.inf

    @staticmethod
    def of(float_quality: float, measurements: list[Measurement]) -> Latent:
        """The scale for measured qualities, without saturation.

        Args:
            float_quality: quality of the float model.
            measurements: of configurations.

        Raises:
            InvalidInput: a quality is not finite.
        """
        values = np.array([found.value for found in measurements], dtype=np.float64)
        if not (np.isfinite(values).all() and math.isfinite(float_quality)):
            raise InvalidInput("a quality is NaN or infinite; leave failed configurations out")
        if not len(values):
            return Latent(float_quality)
        lowest = measurements[int(np.argmin(values))]
        excess = values - float_quality
        floor = max((lowest.high - lowest.low) / _SIDES, _LEAST * float(np.abs(excess).max()), 1e-300)
        return Latent(float_quality, max(0.0, floor - float(excess.min())))

    def saturating(self, qualities: FloatArray) -> list[Latent]:
        """This scale and those with a ceiling near what was measured at worst, and at twice that."""
        worst = float(np.max(qualities)) - self.float_quality + self.offset
        return [self, *(replace(self, ceiling=factor * worst) for factor in _CEILINGS if worst > 0)]

    def forward(self, quality: FloatArray) -> FloatArray:
        """Latent values of qualities of any shape; what lies outside of the scale is moved to its ends."""
        excess = np.maximum(np.asarray(quality, dtype=np.float64) - self.float_quality + self.offset, 1e-300)
        if math.isinf(self.ceiling):
            return np.log(excess)
        share = np.minimum(excess / self.ceiling, 1 - 1e-9)
        saturated: FloatArray = np.log(excess) - np.log1p(-share)
        return saturated

    def estimated(self, quality: FloatArray, error: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Latent values of estimated qualities, and their standard errors to first order: both of the shape given.

        An estimate whose excess is less than half its standard error says only that it is small: it counts as that
        half. Where the error is 0 this is ``forward``.

        Args:
            quality: estimates.
            error: their standard errors, in units of the quality; not negative.
        """
        floor = self.float_quality - self.offset + _SMALL * error
        told = self.forward(np.where(error > 0, np.maximum(quality, floor), quality))
        excess = np.maximum(np.maximum(quality, floor) - self.float_quality + self.offset, 1e-300)
        share = np.zeros_like(excess) if math.isinf(self.ceiling) else np.minimum(excess / self.ceiling, 1 - 1e-9)
        relative: FloatArray = np.minimum(error / excess / (1 - share), 1 / _SMALL)
        return told, relative

    def inverse(self, latent: FloatArray) -> FloatArray:
        """Qualities of latent values of any shape."""
        grown = np.exp(np.minimum(latent, _OVERFLOW))
        excess = grown if math.isinf(self.ceiling) else 1 / (1 / np.maximum(grown, 1e-300) + 1 / self.ceiling)
        quality: FloatArray = self.float_quality - self.offset + excess
        return quality

    def log_slope(self, quality: FloatArray) -> FloatArray:
        r""":math:`\log\, dz / d\log\epsilon`: what compares likelihoods on two scales with the same offset."""
        excess = np.asarray(quality, dtype=np.float64) - self.float_quality + self.offset
        share = np.zeros_like(excess) if math.isinf(self.ceiling) else np.minimum(excess / self.ceiling, 1 - 1e-9)
        slope: FloatArray = -np.log1p(-share)
        return slope
