"""Scales of weights in every format: the smallest that clip nothing, or those of least squared error.

==================  =============================================  ==================================================
format              ``minmax``                                     ``mse``
==================  =============================================  ==================================================
integers, floats    largest magnitude over largest element         ``scale_search``
asymmetric          the whole range (``asymmetric_scales``)        ranges inside it (``asymmetric_scales``)
fp16 scales         rounded to fp16 before codes are chosen        the best of the three nearest fp16 numbers
mx                  the rule of OCP MX (``block_scales``)          the best of that, half and twice that
nvfp4               e4m3 of the largest magnitude                  the best of 11 e4m3 numbers around that
nf4                 largest magnitude                              likewise: QLoRA defines the format by it
==================  =============================================  ==================================================

Elements that are all zero get the scale 1 (and zero-point 0).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InvalidInput
from ...formats import TensorFormat
from .asymmetric_scales import range_scales, search_range_rows
from .block_scales import (
    e4m3_neighbours,
    e4m3_scale,
    fp16_neighbours,
    fp16_scale,
    plain_scale,
    power_of_two_scale,
    whole_scale,
)
from .layout import Layout
from .scale_search import CHUNK, search_rows, squared_errors
from .weight import WeightScale

_DOWN, _UP = 6, 4  # e4m3 codes around the scale of the largest magnitude: 0.5 to 1.5 of it


def choose_scales(weight: Tensor, target: TensorFormat, channel_axis: int, method: str = "mse") -> WeightScale:
    """Scales (and zero-points) of a weight.

    Args:
        weight: float tensor.
        target: a narrow format.
        channel_axis: axis of the output channels.
        method: ``"mse"`` or ``"minmax"``.

    Raises:
        InvalidInput: the method is unknown.
    """
    if method not in ("mse", "minmax"):
        raise InvalidInput(f"unknown choice of scales {method!r}; choose mse or minmax")
    return (mse_scales if method == "mse" else minmax_scales)(weight, target, channel_axis)


def minmax_scales(weight: Tensor, target: TensorFormat, channel_axis: int) -> WeightScale:
    """The smallest scales that clip nothing (mx formats: the rule of OCP MX, which clips a little).

    Args:
        weight: float tensor.
        target: a narrow format.
        channel_axis: axis of the output channels.
    """
    layout = Layout.of(weight, target, channel_axis)
    rows = layout.rows(weight.detach().float())
    if not target.symmetric:
        scale, zero_point = range_scales(*torch.aminmax(rows, dim=1), target)
        return WeightScale(scale.reshape(layout.scale_shape), zero_point.reshape(layout.scale_shape))
    largest = rows.abs().amax(1).reshape(layout.scale_shape)
    if target.scale == "e4m3":
        whole = whole_scale(largest.amax(), target)
        return WeightScale(e4m3_scale(largest, target, whole), tensor_scale=whole)
    if target.scale == "e8m0":
        return WeightScale(power_of_two_scale(largest, target))
    scale = plain_scale(largest, target)
    return WeightScale(fp16_scale(scale) if target.scale == "fp16" else scale)


def mse_scales(weight: Tensor, target: TensorFormat, channel_axis: int) -> WeightScale:
    """Scales of least squared error.

    Args:
        weight: float tensor.
        target: a narrow format.
        channel_axis: axis of the output channels.
    """
    layout = Layout.of(weight, target, channel_axis)
    start = minmax_scales(weight, target, channel_axis)
    if target.number == "codebook":
        return start
    rows, shape = layout.rows(weight.detach().float()), layout.scale_shape
    chunks = torch.split(rows, max(1, CHUNK // max(1, rows.shape[1])))
    if not target.symmetric:
        found = [_asymmetric(chunk, target) for chunk in chunks]
        scale, zero_point = (torch.cat(each).reshape(shape) for each in zip(*found, strict=True))
        return WeightScale(scale, zero_point)
    if target.scale in ("e8m0", "e4m3"):
        candidates = _block_candidates(start.scale.flatten(), target)
        whole = 1.0 if start.tensor_scale is None else start.tensor_scale
        parts = zip(chunks, torch.split(candidates, len(chunks[0])), strict=True)
        scale = torch.cat([_best(chunk, part, part * whole, target) for chunk, part in parts])
        return WeightScale(scale.reshape(shape), tensor_scale=start.tensor_scale)
    scale = torch.cat([_symmetric(chunk, target) for chunk in chunks])
    return WeightScale(scale.reshape(shape))


def _symmetric(rows: Tensor, target: TensorFormat) -> Tensor:
    scale = search_rows(rows, target)
    if target.scale != "fp16":
        return scale
    candidates = fp16_neighbours(scale)
    return _best(rows, candidates, candidates, target)


def _asymmetric(rows: Tensor, target: TensorFormat) -> tuple[Tensor, Tensor]:
    scale, zero_point = search_range_rows(rows, target)
    if target.scale == "fp16":
        candidates = fp16_neighbours(scale)
        scale = _best(rows, candidates, candidates, target, zero_point[:, None].expand_as(candidates))
    return scale, zero_point


def _block_candidates(scale: Tensor, target: TensorFormat) -> Tensor:
    """Scales of blocks [scales] and those around them: [scales, candidates], the scale itself first."""
    if target.scale == "e4m3":
        return e4m3_neighbours(scale, _DOWN, _UP)
    return (scale[:, None] * scale.new_tensor([1.0, 0.5, 2.0])).clamp(2.0**-127, 2.0**127)


def _best(
    rows: Tensor, candidates: Tensor, factors: Tensor, target: TensorFormat, zero_points: Tensor | None = None
) -> Tensor:
    """Of the candidates of each row the one whose factor gives the least squared error; the first one on ties."""
    which = squared_errors(rows, factors, target, zero_points).argmin(1, keepdim=True)
    return candidates.gather(1, which)[:, 0]
