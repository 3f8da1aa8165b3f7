"""Floating-point formats: rounding a tensor to a narrower float and back."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import UnknownFormat
from ...formats import TensorFormat

_TYPES = {16: torch.bfloat16, 32: torch.float32}


def round_to_float(value: Tensor, target: TensorFormat) -> Tensor:
    """Round to the float format (half to even) and return in the type of ``value``.

    Raises:
        UnknownFormat: no floating-point type of that width is known.
    """
    if target.bits not in _TYPES:
        raise UnknownFormat(f"no {target.bits}-bit floating-point format; known: bf16, fp32")
    if target.bits >= value.element_size() * 8:
        return value
    return value.to(_TYPES[target.bits]).to(value.dtype)
