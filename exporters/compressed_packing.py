"""Weights as compressed-tensors stores them: several codes in a word, and scales in the types of the format.

============================  =================================  ==================================================
format                        ``weight_packed`` or ``weight``    beside it
============================  =================================  ==================================================
``pack-quantized``            int32: codes, offset to unsigned,  ``weight_scale``, ``weight_shape``
                              the first in the lowest bits
``int-quantized``             int8                               ``weight_scale``
``naive-``, ``float-quantized``  float8_e4m3fn                   ``weight_scale``
``mxfp8-quantized``           float8_e4m3fn                      ``weight_scale``: uint8, the exponent plus 127
``mxfp4-pack-quantized``      uint8: two codes, the first low    ``weight_scale``: uint8, the exponent plus 127
``nvfp4-pack-quantized``      uint8: two codes, the first low    ``weight_scale``: float8_e4m3fn,
                                                                 ``weight_global_scale``: what divides it
============================  =================================  ==================================================

Codes of 3 bits are stored as codes of 4, those of 5 to 7 bits as codes of 8: the values are the same, the size is what
``size_mb`` counts, and the kernels of the servers exist.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..evaluators.quantizers import QuantizedWeight

#: Bias of an E8M0 exponent.
_E8M0_BIAS = 127


def pack_words(unsigned: Tensor, bits: int) -> Tensor:
    """Codes of a row in int32 words, the first in the lowest bits.

    Args:
        unsigned: uint8 [rows, columns], every code below ``2 ** bits``.
        bits: 2, 4 or 8.

    Returns:
        int32 [rows, ceil(columns * bits / 32)]; the rest of the last word is zero.
    """
    rows, columns = unsigned.shape
    words = math.ceil(columns * bits / 32)
    padded = torch.zeros(rows, words * 32 // bits, dtype=torch.uint8)
    padded[:, :columns] = unsigned
    return pack_bytes(padded, bits).view(torch.int32)


def pack_bytes(unsigned: Tensor, bits: int) -> Tensor:
    """Codes of a row in bytes, the first in the lowest bits: uint8 [rows, ceil(columns * bits / 8)]."""
    each = 8 // bits
    rows, columns = unsigned.shape
    if columns % each:
        unsigned = torch.nn.functional.pad(unsigned, (0, -columns % each))
    parts = unsigned.reshape(rows, -1, each)
    found = parts[..., 0].clone()
    for position in range(1, each):
        found |= parts[..., position] << (bits * position)
    return found.contiguous()


def packed_integers(weight: QuantizedWeight) -> dict[str, Tensor]:
    """``pack-quantized``: the tensors of a matrix of symmetric integers with one scale per channel or group."""
    bits = weight.target.container_bits
    unsigned = (weight.codes.cpu().to(torch.int16) + (1 << (bits - 1))).to(torch.uint8)
    return {
        "weight_packed": pack_words(unsigned, bits),
        "weight_scale": _scale(weight),
        "weight_shape": torch.tensor(unsigned.shape, dtype=torch.int64),
    }


def plain_codes(weight: QuantizedWeight) -> dict[str, Tensor]:
    """``int-quantized``, ``naive-quantized``, ``float-quantized``, ``mxfp8-quantized``: one code an element."""
    codes = weight.codes.cpu()
    if weight.target.number == "float":
        codes = codes.view(torch.float8_e4m3fn)
    scale = _exponents(weight) if weight.target.scale == "e8m0" else _scale(weight)
    return {"weight": codes, "weight_scale": scale}


def packed_floats(weight: QuantizedWeight) -> dict[str, Tensor]:
    """``mxfp4-pack-quantized`` and ``nvfp4-pack-quantized``: two e2m1 codes a byte."""
    found = {"weight_packed": pack_bytes(weight.codes.cpu(), 4)}
    if weight.scales.tensor_scale is None:
        return {**found, "weight_scale": _exponents(weight)}
    found["weight_scale"] = weight.scale.cpu().to(torch.float8_e4m3fn)
    return {**found, "weight_global_scale": reciprocal_scale(float(weight.scales.tensor_scale))}


def reciprocal_scale(scale: float) -> Tensor:
    """A global scale of nvfp4 as the format stores it: what the scales of blocks are divided by. float32 [1]."""
    return 1.0 / torch.tensor([scale], dtype=torch.float32)


def _scale(weight: QuantizedWeight) -> Tensor:
    """Scales [channels, 1], [channels, groups], [squares down, squares across] or [1], in the type that they have."""
    kind = torch.float16 if weight.target.scale == "fp16" else torch.float32
    scale = weight.scale.cpu().to(kind)
    return scale.reshape(-1, 1) if weight.target.granularity == "channel" else scale


def _exponents(weight: QuantizedWeight) -> Tensor:
    """Powers of two as E8M0: uint8."""
    return (weight.scale.cpu().log2().round() + _E8M0_BIAS).to(torch.uint8)
