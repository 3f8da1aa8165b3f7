r"""How far the measured front is from the predicted one: shown as it shrinks.

Both fronts are judged by their hypervolume in the plane (price, latent quality), the price as a share of its range.
What is predicted beyond what is measured is either not measured yet or not true; both end when everything predicted to
be on the front was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from ..allocation import hypervolume
from .latent import Latent

FloatArray = NDArray[np.float64]
_MARGIN = 0.1  # of the range, between the worst point and the reference


@dataclass(frozen=True)
class FrontGap:
    """Hypervolumes and what is between them.

    Attributes:
        predicted: of the predicted front.
        measured: of the measured front.
        relative: (predicted - measured) / predicted; 0 or negative where the measurements keep the promise.
    """

    predicted: float
    measured: float
    relative: float


def front_gap(
    latent: Latent,
    predicted: FloatArray,
    predicted_costs: FloatArray,
    measured: FloatArray,
    measured_costs: FloatArray,
) -> FrontGap:
    """The gap between two fronts; dominated points count nothing.

    Args:
        latent: the scale of the quality.
        predicted: predicted qualities, such as ``Fitted.predict(exact front).mean``: [n], at least 1.
        predicted_costs: their prices: [n, prices].
        measured: measured qualities: [m], at least 1.
        measured_costs: their prices: [m, prices].

    Returns:
        The gap; 0 where both fronts have no volume.

    Raises:
        InvalidInput: a front has no points, or prices and qualities do not fit.
    """
    told = (np.shape(predicted), np.shape(predicted_costs), np.shape(measured), np.shape(measured_costs))
    if not len(predicted) or not len(measured) or told[1][:1] != told[0] or told[3][:1] != told[2]:
        raise InvalidInput(f"fronts of shapes {told}; give [n], [n, prices], [m], [m, prices], n and m at least 1")
    points = [
        np.column_stack([latent.forward(quality), costs])
        for quality, costs in ((predicted, predicted_costs), (measured, measured_costs))
    ]
    both = np.concatenate(points)
    low, extent = both.min(axis=0), np.maximum(np.ptp(both, axis=0), 1e-12)
    reference = np.full(both.shape[1], 1 + _MARGIN)
    first, second = (hypervolume((each - low) / extent, reference) for each in points)
    return FrontGap(first, second, (first - second) / first if first > 0 else 0.0)
