r"""Percentile: the largest magnitudes, a fixed share of all values, are clipped.

Symmetric formats and floats (Wu et al. 2020, arXiv:2004.09602, section 4; McKinstry et al. 2018, arXiv:1809.04191):

.. math:: h = -l = Q_{p}(|x|)

Asymmetric formats take both tails by themselves: :math:`l = Q_{1 - p}(x)`, :math:`h = Q_{p}(x)`. Quantiles are read
from a histogram; they are exact to the width of its bins, at most 1/4096 of the largest magnitude of a tensor and 1/256
of that of a feature.
"""

from __future__ import annotations

from ...errors import InvalidInput
from ...formats import TensorFormat
from ..quantizers import Range
from .histogram import Histogram
from .histogram_observer import HistogramObserver
from .protocol import clipped


class Percentile(HistogramObserver):
    """Clips at a percentile.

    Args:
        percentile: p in percent; Wu et al. try 99.9, 99.99 and 99.999, and 99.99 loses least over their networks.

    Raises:
        InvalidInput: the percentile is not above 50 and at most 100.
    """

    def __init__(self, percentile: float = 99.99) -> None:
        super().__init__()
        if not 50 < percentile <= 100:
            raise InvalidInput(f"the percentile must be above 50 and at most 100, got {percentile}; try 99.99")
        self.percentile = percentile

    def clip(self, histogram: Histogram, target: TensorFormat) -> Range:
        """See ``HistogramObserver.clip``."""
        share, seen = self.percentile / 100, histogram.extremes
        if target.symmetric:
            return clipped(seen, histogram.quantile(share, magnitude=True))
        low, high = histogram.quantile(1 - share), histogram.quantile(share)
        return Range(low.maximum(seen.low), high.minimum(seen.high))
