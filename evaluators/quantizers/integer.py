r"""Integer quantization: codes, scales, zero-points.

Affine quantization of a tensor :math:`x` to codes :math:`q` (Jacob et al. 2018, arXiv:1712.05877, eq. 1; ONNX
``QuantizeLinear``):

.. math::
    q = \operatorname{clamp}(\operatorname{round}(x / s) + z,\; q_{\min}, q_{\max}), \qquad \hat x = s (q - z)

``round`` is half to even. Signed symmetric codes use the full range :math:`[-2^{b-1}, 2^{b-1}-1]` with z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InvalidInput
from ...formats import TensorFormat


@dataclass(frozen=True)
class QuantizedWeight:
    """Integer codes of a weight and one scale per output channel.

    Attributes:
        codes: int8 tensor of the weight's shape.
        scale: float32 tensor [channels].
        channel_axis: the axis that the scales run along.
    """

    codes: Tensor
    scale: Tensor
    channel_axis: int

    def dequantize(self) -> Tensor:
        """The float32 weight that the codes stand for: scale x code."""
        return self.codes.float() * broadcast(self.scale, self.codes.ndim, self.channel_axis)


def broadcast(scale: Tensor, dimensions: int, channel_axis: int) -> Tensor:
    """Reshape a per-channel vector [channels] so that it multiplies a tensor along ``channel_axis``."""
    return scale.reshape([-1 if axis == channel_axis else 1 for axis in range(dimensions)])


def quantize_weight(weight: Tensor, target: TensorFormat, scale: Tensor, channel_axis: int) -> QuantizedWeight:
    """Round a weight to signed symmetric codes.

    Args:
        weight: float tensor.
        target: a symmetric integer format.
        scale: float32 tensor [channels], positive.
        channel_axis: the axis that the scales run along.

    Returns:
        Codes, scales and axis.
    """
    low, high = target.levels
    ratio = weight.detach().float() / broadcast(scale, weight.ndim, channel_axis)
    return QuantizedWeight(ratio.round_().clamp_(low, high).to(torch.int8), scale, channel_axis)


@dataclass(frozen=True)
class ActivationQuantizer:
    """Static per-tensor asymmetric quantization of an activation to unsigned codes.

    Attributes:
        scale: s, positive.
        zero_point: z, an integer code.
        bits: code width b; codes lie in [0, 2^b - 1].
    """

    scale: float
    zero_point: int
    bits: int

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
