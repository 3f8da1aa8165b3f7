r"""Quantizers of activations: what rounds the tensor that enters a layer.

Static ones carry scales from calibration; dynamic ones compute them from the tensor, one per token (row of the last
axis) or per group of features. Integers: :math:`\hat x = s (\operatorname{clamp}(\operatorname{round}(x / s) + z, q_{\min},
q_{\max}) - z)` (Jacob et al. 2018, arXiv:1712.05877, eq. 1), floats as in ``grid``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import InvalidInput
from ...formats import TensorFormat
from .floating import round_to_float

Quantizer = Callable[[Tensor], Tensor]


class Range(NamedTuple):
    """What an observer saw of an activation, or the clipping range that it chose.

    Attributes:
        low: lower end(s): float32 tensor [], or [features] for a format with one scale per feature.
        high: upper end(s), of the same shape.
    """

    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class ActivationQuantizer:
    """Static per-tensor quantization of an activation to integers.

    Attributes:
        scale: s, positive.
        zero_point: z, an integer code; 0 when symmetric.
        bits: code width b.
        symmetric: signed codes [-2^(b-1), 2^(b-1) - 1] instead of [0, 2^b - 1].
    """

    scale: float
    zero_point: int
    bits: int
    symmetric: bool = False

    @staticmethod
    def from_range(low: float, high: float, bits: int) -> ActivationQuantizer:
        """The quantizer whose codes cover [min(low, 0), max(high, 0)], so that zero is exact.

        Raises:
            InvalidInput: the range is not finite.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        if not (abs(low) < float("inf") and abs(high) < float("inf")):
            raise InvalidInput(f"activation range [{low}, {high}] is not finite; check the calibration data")
        top = 2**bits - 1
        # float32 throughout: the runtime stores the scale in float32 and divides by that very number
        scale = float(torch.tensor((high - low) / top, dtype=torch.float32))
        if scale < torch.finfo(torch.float32).tiny:  # too few bits are left of it, and some runtimes read it as 0
            scale = 1.0
        return ActivationQuantizer(scale, min(max(round(-low / scale), 0), top), bits)

    def codes(self, value: Tensor) -> Tensor:
        """Codes as a float tensor: round(x / s) + z, clamped."""
        return value.div(self.scale).round_().add_(self.zero_point).clamp_(0, 2**self.bits - 1)

    def __call__(self, value: Tensor) -> Tensor:
        """Fake quantization: s (codes - z), in the type of ``value``."""
        return self.codes(value.float()).sub_(self.zero_point).mul_(self.scale).to(value.dtype)


@dataclass(frozen=True)
class FloatRounding:
    """Rounding to a float of 16 bits, which has no scale.

    Attributes:
        target: bf16 or fp16.
    """

    target: TensorFormat

    def __call__(self, value: Tensor) -> Tensor:
        """Round, and return in the type of ``value``."""
        return round_to_float(value, self.target)


def activation_quantizer(target: TensorFormat, found: Range | None = None) -> Quantizer:
    """What rounds an activation.

    Args:
        target: the format; dynamic and wide formats need no range.
        found: clipping range for static formats.
    """
    if target.is_wide:
        return FloatRounding(target)
    assert found is not None
    return ActivationQuantizer.from_range(float(found.low), float(found.high), target.bits)
