"""What lies between kernels of unlike formats in torch: quantization, dequantization, change of layout.

Eager torch runs each as a few operators, one pass over memory each (``executed`` names them); a compiled model fuses
them, so these times are upper bounds of what a fused runtime pays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import NotMeasured
from ..kernels import Kernel
from .torch_kernels import OTHER_BOUND, TorchKernel

if TYPE_CHECKING:
    import torch

#: Half a step of a code relative to the values, on unit normal data: the error of a conversion to 8 bits.
_ROUNDING = 5e-2


def conversion(kernel: Kernel, values: torch.Tensor) -> TorchKernel:
    """A conversion of unit normal values (bf16 in or out).

    Raises:
        NotMeasured: torch has no such conversion.
    """
    if kernel.op in ("ChannelsLast", "ChannelsFirst"):
        return _layout(kernel.op, values)
    if kernel.op == "Dequantize":
        return _dequantize(kernel.activation_format, values)
    if kernel.op in ("Quantize", "QuantizeRow"):
        return _quantize(kernel.activation_format, values, rows=kernel.op == "QuantizeRow")
    raise NotMeasured(f"torch has no conversion {kernel.op}")


def _quantize(kind: str, values: torch.Tensor, rows: bool) -> TorchKernel:
    import torch

    top, storage = (127.0, torch.int8) if kind == "int8" else (448.0, torch.float8_e4m3fn)
    x = values.bfloat16()
    used = x.clone()
    static = x.abs().amax().float() / top

    def codes_of(scale: torch.Tensor) -> torch.Tensor:
        codes = (used / scale).clamp_(-top, top)
        return (codes.round_() if kind == "int8" else codes).to(storage)

    def call() -> torch.Tensor:
        return codes_of(used.abs().amax(dim=-1, keepdim=True).float() / top if rows else static)

    def compare(codes: torch.Tensor) -> float:
        scale = x.abs().amax(dim=-1, keepdim=True).float() / top if rows else static
        return float((codes.float() * scale - x.float()).norm() / x.float().norm())

    steps = "div+clamp_" + ("+round_" if kind == "int8" else "") + "+to"
    return TorchKernel(x, used, call, compare, _ROUNDING, ("abs+amax+" if rows else "") + steps)


def _dequantize(kind: str, values: torch.Tensor) -> TorchKernel:
    import torch

    top, storage = (127.0, torch.int8) if kind == "int8" else (448.0, torch.float8_e4m3fn)
    scale = (values.abs().amax() / top).bfloat16()
    codes = (values / scale.float()).round().to(storage) if kind == "int8" else (values / scale.float()).to(storage)
    used = codes.clone()
    wanted = codes.float() * scale.float()

    def compare(y: torch.Tensor) -> float:
        return float((y.float() - wanted).norm() / wanted.norm())

    return TorchKernel(codes, used, lambda: used.to(torch.bfloat16) * scale, compare, OTHER_BOUND, "to+mul")


def _layout(op: str, values: torch.Tensor) -> TorchKernel:
    import torch

    target, source = torch.channels_last, torch.contiguous_format
    if op == "ChannelsFirst":
        target, source = source, target
    x = values.bfloat16().contiguous(memory_format=source)
    used = x.clone(memory_format=torch.preserve_format)

    def compare(y: torch.Tensor) -> float:
        if not y.is_contiguous(memory_format=target):
            return float("inf")
        return float((y.float() - x.float()).abs().max())

    return TorchKernel(x, used, lambda: used.contiguous(memory_format=target), compare, 0.0, "contiguous")
