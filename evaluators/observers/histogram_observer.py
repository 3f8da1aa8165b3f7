"""What the observers share that clip by the distribution of the values."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from ...formats import TensorFormat
from ..quantizers import Range
from .histogram import Histogram


class HistogramObserver(ABC):
    """Counts all values, and chooses the range from the counts."""

    def __init__(self) -> None:
        self._histogram: Histogram | None = None

    def observe(self, value: Tensor, extremes: Range) -> None:
        """Count the values; see ``Observer``."""
        if self._histogram is None:
            self._histogram = Histogram(value.shape[1], value.device)
        self._histogram.add(value, extremes)

    def end_batch(self) -> None:  # noqa: B027  that nothing happens is meant
        """Nothing to do: the counts do not depend on how the data is cut into batches."""

    def range(self, target: TensorFormat) -> Range:
        """The clipping range; the extremes for nvfp4.

        The scale of the tensor in nvfp4 only says where the e4m3 scales of its blocks lie, and each block takes its
        own from the values in it, so nothing is won by clipping.
        """
        assert self._histogram is not None
        if target.granularity == "group":
            return self._histogram.extremes
        return self.clip(self._histogram, target)

    @abstractmethod
    def clip(self, histogram: Histogram, target: TensorFormat) -> Range:
        """The clipping range for a format, each end [columns]."""
