r"""Scales that are narrow numbers themselves: powers of two (E8M0), e4m3 under a scale of the tensor, and fp16.

MX formats (OCP Microscaling Formats v1.0, section 6.3), for each block of 32 elements v:

.. math:: s = 2^{\lfloor \log_2 \max |v| \rfloor - e_{\max}}

with :math:`e_{\max}` the exponent of the largest element of the format (8 for e4m3, 2 for e2m3 and e2m1). What lies
beyond the largest element saturates. E8M0 holds :math:`2^{-127}` to :math:`2^{127}`.

nvfp4 (NVIDIA; torchao ``nvfp4_quantize``): with :math:`s_t = \max |x| / (448 \cdot 6)` of the whole tensor, each block
of 16 has :math:`s_b = \operatorname{e4m3}(\max |v| / 6 / s_t)`, at least :math:`2^{-6}`, the smallest normal e4m3.

Blocks that are all zero get the scale 1. A block with a NaN gets the scale NaN.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...formats import TensorFormat
from .elementwise import divided

_E4M3_LARGEST, _E4M3_SMALLEST = 448.0, 2.0**-6
_FP16_LARGEST, _FP16_SMALLEST = 65504.0, 2.0**-24
_TINY = torch.finfo(torch.float32).tiny  # below it, float32 runs out of bits


def plain_scale(largest: Tensor, target: TensorFormat) -> Tensor:
    """The float32 scale that maps the largest magnitude to the largest element.

    It is 1 where it would be zero or subnormal: too few bits are left of it, and some runtimes read it as 0.
    """
    scale = divided(largest, target.largest)
    return torch.where(scale < _TINY, 1.0, scale)


def fp16_scale(scale: Tensor) -> Tensor:
    """The nearest positive fp16 numbers, as float32."""
    return scale.clamp(_FP16_SMALLEST, _FP16_LARGEST).half().float()


def fp16_neighbours(scale: Tensor) -> Tensor:
    """The fp16 numbers around float32 scales, as float32: [..., 3], the nearest first."""
    nearest = scale.clamp(_FP16_SMALLEST, _FP16_LARGEST).half()
    bits = nearest.view(torch.int16)[..., None] + torch.tensor([0, -1, 1], dtype=torch.int16, device=scale.device)
    return bits.clamp(1, 0x7BFF).view(torch.half).float()  # 0x7BFF is the largest finite fp16


def power_of_two_scale(largest: Tensor, target: TensorFormat) -> Tensor:
    """E8M0 scales of blocks by the rule of OCP MX.

    Args:
        largest: float32 magnitudes, one a block.
        target: format of the elements.
    """
    exponent = largest.contiguous().view(torch.int32).bitwise_right_shift(23).sub_(127)
    return torch.where(largest == 0, 1.0, power_of_two(exponent - math.floor(math.log2(target.largest)))).where(
        ~largest.isnan(), torch.nan
    )


def power_of_two(exponent: Tensor) -> Tensor:
    """2 to integer exponents, kept within the range of E8M0: float32."""
    bits = exponent.clamp(-126, 127).add_(127).bitwise_left_shift_(23)
    return torch.where(exponent < -126, 2.0**-127, bits.view(torch.float32))


def whole_scale(largest: Tensor, target: TensorFormat) -> Tensor:
    """The float32 scale of a whole nvfp4 tensor from its largest magnitude: tensor []."""
    return torch.where(largest == 0, 1.0, divided(largest, _E4M3_LARGEST * target.largest).clamp(min=_TINY))


def e4m3_scale(largest: Tensor, target: TensorFormat, whole: Tensor) -> Tensor:
    """The e4m3 scales of blocks, as float32.

    Args:
        largest: float32 magnitudes, one a block.
        target: format of the elements.
        whole: scale of the tensor.
    """
    return torch.where(largest == 0, 1.0, as_e4m3(divided(largest, target.largest) / whole))


def as_e4m3(scale: Tensor) -> Tensor:
    """The nearest normal e4m3 numbers, as float32."""
    return scale.clamp(_E4M3_SMALLEST, _E4M3_LARGEST).to(torch.float8_e4m3fn).float()


def e4m3_neighbours(scale: Tensor, down: int, up: int) -> Tensor:
    """e4m3 scales and the normal numbers around them: [..., down + 1 + up], the scale itself first."""
    steps = torch.tensor([0, *range(-down, 0), *range(1, up + 1)], dtype=torch.int16, device=scale.device)
    codes = scale.to(torch.float8_e4m3fn).view(torch.uint8).to(torch.int16)[..., None] + steps
    return codes.clamp(0x08, 0x7E).to(torch.uint8).view(torch.float8_e4m3fn).float()  # smallest normal, largest


def reciprocal(scale: Tensor, whole: Tensor) -> Tensor:
    """What multiplies a value to give its ratio to both scales of nvfp4, in the order of the kernels (torchao)."""
    return (1.0 / whole) / scale
