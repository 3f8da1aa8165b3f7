r"""MSE: the clipping range of least squared quantization error, for the very format.

.. math:: \min_{l, h} \sum_i \left(x_i - Q(x_i; l, h)\right)^2

(Choukroun et al. 2019, arXiv:1902.06822; Nagel et al. 2021, arXiv:2106.08295, eq. 3.2.) A narrower range clips more and
rounds finer. Q is the quantizer that the model will run with, so zero-points and the uneven steps of floats count;
asymmetric formats search both ends.
"""

from __future__ import annotations

from torch import Tensor

from ...formats import TensorFormat
from ..quantizers import Range
from .clipping_search import clipping_range
from .histogram import Histogram
from .histogram_observer import HistogramObserver


class MeanSquaredError(HistogramObserver):
    """Clips where the squared error is least."""

    def clip(self, histogram: Histogram, target: TensorFormat) -> Range:
        """See ``HistogramObserver.clip``."""
        points, counts = histogram.points()
        return clipping_range(points, counts.float(), histogram.extremes, target, squared_error)


def squared_error(points: Tensor, counts: Tensor, rounded: Tensor, tried: Range) -> Tensor:
    """Sum of the squared errors of rounding, [columns]."""
    return (rounded - points).square_().mul_(counts).sum(0)
