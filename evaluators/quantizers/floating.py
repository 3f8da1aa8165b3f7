"""Floating-point formats: rounding a tensor to a narrower float and back."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import UnknownFormat
from ...formats import TensorFormat
from .elementwise import in_chunks

_TYPES = {(8, 7): torch.bfloat16, (5, 10): torch.float16, (8, 23): torch.float32}


def round_to_float(value: Tensor, target: TensorFormat) -> Tensor:
    """Round to a float of 16 or 32 bits (half to even) and return in the type of ``value``.

    Values beyond the largest finite number of fp16 become infinite, as they do in a model that runs in fp16.

    Raises:
        UnknownFormat: the format is a minifloat, which needs a scale.
    """
    wanted = _TYPES.get((target.exponent_bits, target.mantissa_bits))
    if wanted is None:
        raise UnknownFormat(f"a {target.bits}-bit {target.number} needs a scale; floats without one: bf16, fp16, fp32")
    if wanted == value.dtype or (target.bits == 32 and value.dtype != torch.float64):
        return value
    if (value.requires_grad and torch.is_grad_enabled()) or value.dtype != torch.float32:
        return value.to(wanted).to(value.dtype)
    return in_chunks(value, lambda part, out: out.copy_(part.to(wanted)))
