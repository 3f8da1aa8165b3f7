"""Observer: who sees an activation during calibration and chooses its clipping range."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ...formats import TensorFormat
from ..quantizers import Range


class Observer(Protocol):
    """Sees every tensor that enters one module, in bounded memory.

    Tensors come as columns, one for each scale: [elements, 1] where the whole tensor shares a scale, and
    [tokens, features] where each feature has its own. They are finite, of float32, and not empty.
    """

    def observe(self, value: Tensor, extremes: Range) -> None:
        """Take in one tensor.

        Args:
            value: float32 [elements, columns].
            extremes: its smallest and largest value, each [columns].
        """
        ...

    def end_batch(self) -> None:
        """Called after each calibration batch; a module called twice has observed two tensors by then."""
        ...

    def range(self, target: TensorFormat) -> Range:
        """The clipping range for a format with static scales, each end [columns].

        It may leave out zero; quantizers then extend it, because zero must be exact. Symmetric formats and floats read
        only the larger of the two magnitudes.
        """
        ...


def extremes(value: Tensor) -> Range:
    """Smallest and largest value of each column of [elements, columns]; NaN where the column holds one."""
    if value.shape[1] == 1:  # one column: the reduction over everything is several times faster
        low, high = value.aminmax()
        return Range(low.reshape(1), high.reshape(1))
    return Range(*value.aminmax(dim=0))


def widest(one: Range | None, other: Range) -> Range:
    """The smallest range that holds both."""
    if one is None:
        return other
    return Range(one.low.minimum(other.low), one.high.maximum(other.high))


def clipped(extremes: Range, threshold: Tensor) -> Range:
    """The range cut to [-threshold, threshold]."""
    return Range(extremes.low.maximum(-threshold), extremes.high.minimum(threshold))
