r"""Entropy: the clipping range after which the distribution has lost the least information.

.. math:: \min_{l, h} \operatorname{KL}(P \,\|\, Q) = \sum_i P_i \log \frac{P_i}{Q_i}

(Migacz 2017, "8-bit inference with TensorRT", GTC; Wu et al. 2020, arXiv:2004.09602, section 4.) P is the histogram
within [l, h], with the counts outside added to its outermost bins; Q gives the counts within [l, h] in equal parts to
all bins that one code stands for and that are not empty. Migacz clips magnitudes of signed int8; here the codes are
those of the format, found by its own quantizer, so that unsigned codes have all their levels on one side of a ReLU, and
asymmetric ranges move both ends. As there, a range needs as many bins as the format has codes, for otherwise rounding
would seem to lose nothing; here bins count that are not empty, and half of all of them are always enough (an input of
few distinct values, or with one far away). Exact zeros are left out: they are rounded to themselves.

The divergence compares counts bin by bin, so it needs many values: formats with one scale per feature are refused.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ...errors import InvalidInput
from ...formats import TensorFormat
from ..quantizers import Range
from .clipping_search import clipping_range
from .histogram import Histogram
from .histogram_observer import HistogramObserver

_BINS = 1 << 12  # 1024 to 2048 up to the largest magnitude, as Migacz has; more bins measure the noise of the counts


class Entropy(HistogramObserver):
    """Clips where the Kullback-Leibler divergence is least."""

    def observe(self, value: Tensor, extremes: Range) -> None:
        """Count the values; see ``Observer``.

        Raises:
            InvalidInput: there is more than one column.
        """
        if value.shape[1] > 1:
            raise InvalidInput(
                "the entropy observer needs all values of a tensor, but a format has one scale per feature (such as "
                "w8a8c): choose activations='mse' or 'percentile', or formats with one scale per tensor"
            )
        super().observe(value, extremes)

    def clip(self, histogram: Histogram, target: TensorFormat) -> Range:
        """See ``HistogramObserver.clip``."""
        merge = max(1, histogram.bins // _BINS)
        points, counts = histogram.points(merge)
        loss = partial(divergence, fewest=min(2**target.bits, len(points) / 2))
        return clipping_range(points, counts, histogram.extremes, target, loss)


def divergence(points: Tensor, counts: Tensor, rounded: Tensor, tried: Range, fewest: float) -> Tensor:
    """KL(P || Q) of each column in nats, infinite for ranges that hold too few bins.

    Args:
        points: middles of the bins, ascending, [bins, columns].
        counts: of each bin.
        rounded: the points, rounded.
        tried: clipping range of each column.
        fewest: how many bins that are not empty a range must hold.
    """
    inside = (points >= tried.low) & (points <= tried.high) & (counts > 0)
    kept = torch.where(inside, counts, 0)
    original = _with_outliers(points, counts, kept, inside, tried)
    # bins that are rounded to the same element follow one another
    code = torch.zeros_like(points, dtype=torch.int64)
    code[1:] = (rounded[1:] != rounded[:-1]).cumsum(0)
    shared = torch.zeros_like(kept).scatter_add_(0, code, kept)
    bins = torch.zeros_like(kept).scatter_add_(0, code, inside.to(kept.dtype))
    spread = (shared / bins.clamp(min=1)).gather(0, code)
    total = original.sum(0)
    ratio = torch.where(inside, original / spread, 1) * (kept.sum(0) / total)
    found = (original * ratio.log()).sum(0) / total
    return torch.where(inside.sum(0) >= fewest, found, torch.inf)


def _with_outliers(points: Tensor, counts: Tensor, kept: Tensor, inside: Tensor, tried: Range) -> Tensor:
    """The counts inside, and those outside added to the outermost bins that hold any."""
    below = torch.where(points < tried.low, counts, 0).sum(0, keepdim=True)
    above = torch.where(points > tried.high, counts, 0).sum(0, keepdim=True)
    first = inside.int().argmax(0, keepdim=True)
    last = len(points) - 1 - inside.flip(0).int().argmax(0, keepdim=True)
    return kept.scatter_add(0, first, below).scatter_add_(0, last, above)
