"""Convolutions in torch, in the channels-last layout, that the fast kernels of GPUs and CPUs read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...errors import NotMeasured
from ..kernels import Kernel
from .catalogue import format_of
from .torch_kernels import BOUNDS, OTHER_BOUND, TorchKernel, dtype, relative

if TYPE_CHECKING:
    import torch


def convolution(kernel: Kernel, normal: Callable[..., torch.Tensor]) -> TorchKernel:
    """A convolution of random data.

    Args:
        kernel: what.
        normal: makes unit normal values of a shape.

    Raises:
        NotMeasured: the padding is not the same on both sides.
    """
    import torch
    import torch.nn.functional as F

    attributes = dict(kernel.attributes)
    pads, kind = attributes["pads"], dtype(kernel.activation_format)
    before, after = pads[: len(pads) // 2], pads[len(pads) // 2 :]
    if before != after:
        raise NotMeasured(f"convolution {kernel.shape}: torch pads both sides alike, got {pads}")
    last = torch.channels_last
    x = normal(*kernel.input_shape).to(kind, memory_format=last)
    fan_in = 1
    for size in kernel.weight_shape[1:]:
        fan_in *= size
    weight = (normal(*kernel.weight_shape) / fan_in**0.5).to(kind, memory_format=last)
    bias = normal(kernel.channels).to(kind) if kernel.bias else None
    used = x.clone(memory_format=torch.preserve_format)
    rest = (list(attributes["strides"]), list(before), list(attributes["dilations"]), attributes["group"][0])

    def compare(y: torch.Tensor) -> float:
        wanted = F.conv2d(x[:1].double(), weight.double(), None if bias is None else bias.double(), *rest)
        return relative(y[:1], wanted)

    name = format_of(kernel)
    return TorchKernel(
        x,
        used,
        lambda: F.conv2d(used, weight, bias, *rest),
        compare,
        BOUNDS.get(name, OTHER_BOUND),
        "conv2d",
        tf32=name == "tf32",
    )
