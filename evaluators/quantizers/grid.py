r"""The elements of a format: rounding to the nearest one, and the codes that stand for them.

Integers: :math:`\operatorname{clamp}(\operatorname{round}(x) + z, q_{\min}, q_{\max}) - z`, ``round`` half to even.

Minifloats with E exponent and M mantissa bits and bias :math:`b = 2^{E-1} - 1`: a sign, and

.. math:: 2^{e - b} (1 + m / 2^M) \quad (e \ge 1), \qquad 2^{1 - b}\, m / 2^M \quad (e = 0)

A value in the middle of two elements goes to the even mantissa. Without mantissa bits it goes to the larger magnitude,
but half of the smallest power of two to zero. What lies beyond the largest finite value, infinity too, saturates to it
(the saturating conversion of ONNX ``Cast`` and of OCP MX; ``torch.Tensor.to`` gives NaN or infinity there instead). NaN
stays NaN.

nf4 (Dettmers et al. 2023, arXiv:2305.14314, appendix E): the nearest of 16 values, the lower one at equal distance.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ...formats import TensorFormat

#: The values of bitsandbytes: quantiles of N(0, 1) scaled to [-1, 1], as float32. (torchao keeps four decimals.)
NF4_VALUES = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


def nearest(ratio: Tensor, target: TensorFormat, zero_point: Tensor | float = 0.0) -> Tensor:
    """The element nearest to each value.

    Args:
        ratio: float32 tensor, already divided by its scale.
        target: the format; its granularity does not matter here.
        zero_point: z of an asymmetric integer format, broadcast against ``ratio``.

    Returns:
        A new float32 tensor of elements (for integers code minus zero-point).
    """
    if target.number == "int":
        low, high = target.levels
        if target.symmetric:
            return ratio.round().clamp_(low, high)
        return ratio.round().add_(zero_point).clamp_(low, high).sub_(zero_point)
    if target.number == "codebook":
        values = codebook(target, ratio.device)
        middles = (values[1:] + values[:-1]) / 2
        return values[torch.bucketize(ratio.contiguous(), middles)].where(~ratio.isnan(), torch.nan)
    return _nearest_float(ratio, target)


def _nearest_float(ratio: Tensor, target: TensorFormat) -> Tensor:
    """Round to a minifloat: a multiple of the step between the elements of its binade."""
    ratio = ratio.clamp(-target.largest, target.largest)  # an element itself, so rounding does not lead beyond it
    lowest = 1 - target.exponent_bias  # exponent of the subnormals and of the smallest normal numbers
    # the exponent of a float32 stands in its bits 23 to 30; a subnormal float32 counts as far below the lowest
    exponent = ratio.view(torch.int32).bitwise_right_shift(23).bitwise_and_(0xFF).sub_(127).clamp_(min=lowest)
    step = exponent.sub_(target.mantissa_bits).add_(127).bitwise_left_shift_(23).view(torch.float32)
    return (ratio / step).round_().mul_(step)


def encode(elements: Tensor, target: TensorFormat, zero_point: Tensor | float = 0.0) -> Tensor:
    """The codes of elements: int8 for symmetric integers, else uint8.

    An asymmetric integer is its code, a minifloat its bits (sign, exponent, mantissa), nf4 its index.
    """
    if target.number == "int":
        return elements.to(torch.int8) if target.symmetric else (elements + zero_point).to(torch.uint8)
    if target.number == "codebook":
        return torch.searchsorted(codebook(target, elements.device), elements.contiguous()).to(torch.uint8)
    magnitudes = codebook(target, elements.device)[: 1 << (target.bits - 1)]
    finite = magnitudes[torch.isfinite(magnitudes)]
    code = torch.searchsorted(finite, elements.abs().contiguous()).to(torch.uint8)
    return code | (torch.signbit(elements).to(torch.uint8) << (target.bits - 1))


def decode(codes: Tensor, target: TensorFormat, zero_point: Tensor | float = 0.0) -> Tensor:
    """The float32 elements that codes stand for."""
    if target.number == "int":
        return codes.float() if target.symmetric else codes.float() - zero_point
    return codebook(target, codes.device)[codes.long()]


def codebook(target: TensorFormat, device: torch.device | str = "cpu") -> Tensor:
    """The element of every code of a minifloat or of nf4: float32 [2^bits].

    Codes that stand for infinity or NaN (the top of e4m3, e5m2 and e3m4) are NaN.
    """
    return _codebook(target.number, target.exponent_bits, target.mantissa_bits, target.largest).to(device)


@lru_cache
def _codebook(number: str, exponent_bits: int, mantissa_bits: int, largest: float) -> Tensor:
    if number == "codebook":
        return torch.tensor(NF4_VALUES)
    codes = torch.arange(1 << (exponent_bits + mantissa_bits))
    exponent, mantissa = codes >> mantissa_bits, (codes & ((1 << mantissa_bits) - 1)).double() / (1 << mantissa_bits)
    bias = (1 << (exponent_bits - 1)) - 1
    normal = torch.ldexp(1 + mantissa, exponent - bias)
    values = torch.where(exponent == 0, torch.ldexp(mantissa, torch.tensor(1 - bias)), normal)
    values = torch.where(values <= largest, values, torch.nan)
    return torch.cat([values, -values]).float()
