"""The weight of any layer by groups, output channels and input channels, and how its channels are scaled."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...space import Site


def grouped(weight: Tensor, kind: str, groups: int = 1) -> Tensor:
    """The weight as [groups, outputs of a group, inputs of a group, taps].

    Args:
        weight: linear [out, in]; hf_conv1d [in, out]; conv [out, in / groups, *kernel]; conv_transpose
            [in, out / groups, *kernel].
        kind: layer kind, as ``Site.kind``.
        groups: of a convolution.
    """
    if kind == "hf_conv1d":
        return weight.t()[None, :, :, None]
    by_group = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return by_group.transpose(1, 2) if kind.startswith("conv_transpose") else by_group


def scale_channels(module: nn.Module, kind: str, outputs: Tensor | None = None, inputs: Tensor | None = None) -> None:
    """Multiply the weight (and bias) of a layer along its output channels and its weight along its input channels.

    Args:
        module: a layer with ``weight`` and, perhaps, ``bias``; changed in place.
        kind: as ``Site.kind``.
        outputs: [output channels].
        inputs: [input channels].
    """
    groups = int(getattr(module, "groups", 1))
    weight, bias = module.get_parameter("weight"), getattr(module, "bias", None)
    with torch.no_grad():
        parts = grouped(weight.double(), kind, groups)
        if outputs is not None:
            parts = parts * outputs.to(parts).reshape(groups, -1, 1, 1)
        if inputs is not None:
            parts = parts * inputs.to(parts).reshape(groups, 1, -1, 1)
        if kind == "hf_conv1d":
            parts = parts[0, :, :, 0].t()
        elif kind.startswith("conv_transpose"):
            parts = parts.transpose(1, 2)
        weight.copy_(parts.reshape(weight.shape))
        if isinstance(bias, Tensor) and outputs is not None:
            bias.copy_(bias.double() * outputs.to(bias.device))


def ensure_bias(module: nn.Module, channels: int) -> nn.Parameter:
    """The bias of a layer; a zero one is added where there is none."""
    bias = getattr(module, "bias", None)
    if isinstance(bias, nn.Parameter):
        return bias
    weight = module.get_parameter("weight")
    zeros = torch.zeros(channels, dtype=weight.dtype, device=weight.device)
    module.bias = nn.Parameter(zeros, requires_grad=weight.requires_grad)
    return module.bias


def output_channels(module: nn.Module, site: Site) -> int:
    """Output channels of a layer (a grouped transposed convolution has more than its weight's channel axis)."""
    groups = int(getattr(module, "groups", 1)) if site.kind.startswith("conv_transpose") else 1
    return site.weight_shape[site.channel_axis] * groups
