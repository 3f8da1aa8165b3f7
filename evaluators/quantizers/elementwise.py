"""Elementwise work on a large tensor at nearly the price of one pass over memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_CHUNK = 1 << 17  # elements: input, buffer and output of a chunk stay in the second-level cache of one core


def divided(value: Tensor, number: float, out: Tensor | None = None) -> Tensor:
    """``value / number``, rounded once on every device: given a Python number, CUDA multiplies by its reciprocal."""
    return torch.div(value, torch.full((), number, dtype=value.dtype, device=value.device), out=out)


def in_chunks(value: Tensor, step: Callable[[Tensor, Tensor], object]) -> Tensor:
    """Run an elementwise float32 computation chunk by chunk, so that only its first read and last write touch memory.

    Args:
        value: floating-point tensor of any layout; not changed, and the result carries no gradient.
        step: ``step(part, out)`` reads the float32 tensor ``part`` and writes ``out``, of the same size. Both may be
            the same tensor.

    Returns:
        A new dense tensor of the type, shape and order of axes (channels_last and the like) of ``value``.
    """
    value = value.detach()
    result = torch.empty_like(value)
    if result.stride() != value.stride():  # value has gaps or overlaps; result has neither, in the same order of axes
        value = result.copy_(value)
    whole = value.dtype == torch.float32
    if value.device.type != "cpu" or value.numel() <= _CHUNK:
        if whole:
            step(value, result)
            return result
        buffer = value.float()
        step(buffer, buffer)
        return result.copy_(buffer)
    source, target = (tensor.as_strided((tensor.numel(),), (1,)) for tensor in (value, result))
    for part, out in zip(torch.split(source, _CHUNK), torch.split(target, _CHUNK), strict=True):
        if whole:
            step(part, out)
        else:
            buffer = part.float()
            step(buffer, buffer)
            out.copy_(buffer)
    return result
