r"""Activation quantizers with static scales, from calibration.

Integers: :math:`\hat x = s (\operatorname{clamp}(\operatorname{round}(x / s) + z, q_{\min}, q_{\max}) - z)`, ``round``
half to even (Jacob et al. 2018, arXiv:1712.05877, eq. 1; ONNX ``QuantizeLinear`` and ``DequantizeLinear``). Since z is
an integer, this is :math:`s \operatorname{clamp}(\operatorname{round}(x / s), q_{\min} - z, q_{\max} - z)`, to the bit.
Minifloats: :math:`\hat x = s \operatorname{nearest}(x / s)` with ``grid.nearest``.

Infinity saturates like every value beyond the range, as in ``QuantizeLinear``; NaN stays NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import InvalidInput
from ...formats import TensorFormat
from .asymmetric_scales import range_scales
from .block_scales import plain_scale
from .elementwise import divided, in_chunks
from .floating import round_to_float
from .grid import nearest

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
    def from_range(low: float, high: float, bits: int, symmetric: bool = False) -> ActivationQuantizer:
        """The quantizer whose codes cover [min(low, 0), max(high, 0)], so that zero is exact.

        Symmetric: the larger end is the largest positive code. The scale is a normal float32, as runtimes store it;
        scale and zero-point are computed in float32, by the rule that dynamic activations and weights have
        (``plain_scale``, ``range_scales``).

        Raises:
            InvalidInput: the range is not finite in float32.
        """
        ends = torch.tensor([low, high], dtype=torch.float32)
        if not bool(ends.isfinite().all()):
            raise _not_finite(low, high)
        target = TensorFormat("int", bits, symmetric=symmetric)
        if symmetric:
            return ActivationQuantizer(float(plain_scale(ends.abs().amax(), target)), 0, bits, True)
        scale, zero_point = range_scales(ends[0], ends[1], target)
        return ActivationQuantizer(float(scale), int(zero_point), bits)

    @property
    def levels(self) -> tuple[int, int]:
        """Smallest and largest code."""
        return TensorFormat("int", self.bits, symmetric=self.symmetric).levels

    def codes(self, value: Tensor) -> Tensor:
        """Codes as a float tensor: round(x / s) + z, clamped."""
        return divided(value.float(), self.scale).round_().add_(self.zero_point).clamp_(*self.levels)

    def __call__(self, value: Tensor) -> Tensor:
        """Fake quantization: s (codes - z), in the type of ``value``."""
        low, high = (level - self.zero_point for level in self.levels)
        zero = torch.zeros((), device=value.device)

        def step(part: Tensor, out: Tensor) -> None:
            divided(part, self.scale, out).round_().clamp_(low, high)
            torch.add(zero, out, alpha=self.scale, out=out)  # 0 + s c is s c, but never -0

        return in_chunks(value, step)


@dataclass(frozen=True)
class FloatQuantizer:
    """Static per-tensor quantization of an activation to a minifloat.

    Attributes:
        scale: s, positive.
        target: the format of the elements.
    """

    scale: float
    target: TensorFormat

    @staticmethod
    def from_range(low: float, high: float, target: TensorFormat) -> FloatQuantizer:
        """The quantizer whose largest element is the larger end of the range.

        Raises:
            InvalidInput: the range is not finite.
        """
        largest = max(abs(low), abs(high))
        if not largest < float("inf"):
            raise _not_finite(low, high)
        return FloatQuantizer(float(plain_scale(torch.tensor(largest), target)), target)

    def __call__(self, value: Tensor) -> Tensor:
        """Fake quantization, in the type of ``value``."""

        def step(part: Tensor, out: Tensor) -> None:
            torch.mul(nearest(divided(part, self.scale), self.target), self.scale, out=out)

        return in_chunks(value, step)


@dataclass(frozen=True)
class ChannelQuantizer:
    """Static quantization of an activation with one scale per feature of its last axis.

    Attributes:
        scale: one a feature, positive.
        zero_point: one a feature, integers; all 0 where the format is symmetric.
        target: the format of the elements.
    """

    scale: tuple[float, ...]
    zero_point: tuple[float, ...]
    target: TensorFormat

    @staticmethod
    def from_range(found: Range, target: TensorFormat) -> ChannelQuantizer:
        """The quantizer whose codes cover the range of each feature.

        Raises:
            InvalidInput: a range is not finite, or is not a vector.
        """
        low, high = found.low.float(), found.high.float()
        if low.ndim != 1 or low.shape != high.shape:
            raise InvalidInput(
                f"ranges of shape {tuple(low.shape)} for one scale per feature; give one range a feature"
            )
        if not bool((low.isfinite() & high.isfinite()).all()):
            raise InvalidInput("the activation range of a feature is not finite; check the calibration data")
        if target.symmetric:
            scale = plain_scale(torch.maximum(low.abs(), high.abs()), target)
            zero_point = torch.zeros_like(scale)
        else:
            scale, zero_point = range_scales(low, high, target)
        return ChannelQuantizer(tuple(scale.tolist()), tuple(zero_point.tolist()), target)

    def __call__(self, value: Tensor) -> Tensor:
        """Fake quantization, in the type of ``value``.

        Raises:
            InvalidInput: the last axis has another number of features.
        """
        if value.shape[-1:] != (len(self.scale),):
            raise InvalidInput(
                f"an activation of shape {tuple(value.shape)} does not end in the {len(self.scale)} features "
                "of the calibration data"
            )
        scale = torch.tensor(self.scale, device=value.device)
        zero_point = 0.0 if self.target.symmetric else torch.tensor(self.zero_point, device=value.device)
        return nearest(value.detach().float() / scale, self.target, zero_point).mul_(scale).to(value.dtype)


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


def _not_finite(low: float, high: float) -> InvalidInput:
    return InvalidInput(f"activation range [{low}, {high}] is not finite; check the calibration data")
