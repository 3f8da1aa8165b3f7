"""Products in torch, one function a kernel: operands rounded on the device, the call, the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..kernels import Kernel
from .catalogue import format_of
from .torch_kernels import BOUNDS, OTHER_BOUND, TorchKernel, dtype, product_error

if TYPE_CHECKING:
    import torch

_FP8_TOP, _INT8_TOP = 448.0, 127.0


def product(kernel: Kernel, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> TorchKernel:
    """A product ``x [m, k]`` by ``weight [n, k]`` in the kernel's format.

    Args:
        kernel: what.
        x: float32 input.
        weight: float32 weight.
        bias: float32 [n], or ``None``.
    """
    return _PRODUCTS.get(format_of(kernel), _wide)(kernel, x, weight, bias)


def _wide(kernel: Kernel, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> TorchKernel:
    import torch.nn.functional as F

    kind = dtype(kernel.activation_format)
    x, weight, bias = x.to(kind), weight.to(kind), None if bias is None else bias.to(kind)
    used = x.clone()
    name = format_of(kernel)
    return TorchKernel(
        x,
        used,
        lambda: F.linear(used, weight, bias),
        product_error(x, weight, bias),
        BOUNDS.get(name, OTHER_BOUND),
        "linear",
        tf32=name == "tf32",
    )


def _fp8(kernel: Kernel, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> TorchKernel:
    import torch

    rows = "row_scales" in dict(kernel.attributes)
    kind = torch.float8_e4m3fn
    x_scale, weight_scale = (_scale(each, _FP8_TOP, rows) for each in (x, weight))
    codes, weight_codes = (x / x_scale).to(kind), (weight / weight_scale).to(kind)
    scales = (x_scale, weight_scale.t().contiguous() if rows else weight_scale)
    half = None if bias is None else bias.bfloat16()
    used = codes.clone()

    def call() -> torch.Tensor:
        return torch._scaled_mm(
            used, weight_codes.t(), scale_a=scales[0], scale_b=scales[1], bias=half, out_dtype=torch.bfloat16
        )

    wide = (codes.float() * x_scale, weight_codes.float() * weight_scale)
    return TorchKernel(codes, used, call, product_error(*wide, half), OTHER_BOUND, "_scaled_mm")


def _int8(kernel: Kernel, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> TorchKernel:
    """int8 by int8; with scales for the rows the quantization of the input is part of the call."""
    import torch

    dynamic = "row_scales" in dict(kernel.attributes)
    weight_scale = _scale(weight, _INT8_TOP, rows=True)
    weight_codes = torch.round(weight / weight_scale).to(torch.int8)
    weight_scale = weight_scale.t().contiguous()  # [1, n]
    half = None if bias is None else bias.bfloat16()
    out = torch.empty(len(x), len(weight), dtype=torch.bfloat16, device=x.device)
    if dynamic:
        x = x.bfloat16()
        used = x.clone()
    else:
        x_scale = _scale(x, _INT8_TOP, rows=False)
        x = torch.round(x / x_scale).to(torch.int8)
        used, scale = x.clone(), x_scale * weight_scale

    def finish(sums: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        torch.mul(sums, scales, out=out)
        return out if half is None else out.add_(half)

    def static_call() -> torch.Tensor:
        return finish(torch._int_mm(used, weight_codes.t()), scale)

    def dynamic_call() -> torch.Tensor:
        row_scale = used.abs().amax(dim=1, keepdim=True).float() / _INT8_TOP
        sums = torch._int_mm(torch.round(used / row_scale).to(torch.int8), weight_codes.t())
        return finish(sums, row_scale * weight_scale)

    wide = x.float() if dynamic else x.float() * x_scale
    compare = product_error(wide, weight_codes.float() * weight_scale.t(), half)
    call, executed = (dynamic_call, "abs+amax+div+round+to+_int_mm+mul") if dynamic else (static_call, "_int_mm+mul")
    return TorchKernel(x, used, call, compare, OTHER_BOUND, executed)


def _int8_weight_only(kernel: Kernel, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> TorchKernel:
    import torch

    scale = _scale(weight, _INT8_TOP, rows=True)
    codes = torch.round(weight / scale).to(torch.int8)
    scale = scale.bfloat16()
    x, half = x.bfloat16(), None if bias is None else bias.bfloat16()
    used, flat = x.clone(), scale.reshape(-1)

    def call() -> torch.Tensor:
        y = torch._weight_int8pack_mm(used, codes, flat)
        return y if half is None else y.add_(half)

    compare = product_error(x, codes.float() * scale.float(), half)
    return TorchKernel(x, used, call, compare, OTHER_BOUND, "_weight_int8pack_mm")


def _int4_weight_only(kernel: Kernel, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> TorchKernel:
    import torch

    block = dict(kernel.attributes)["block_size"][0]
    (n, k), on_cpu = weight.shape, weight.device.type == "cpu"
    blocks = weight.reshape(n, k // block, block)
    scale = (blocks.abs().amax(dim=2) / 7.5).bfloat16()
    codes = torch.clamp(torch.round(blocks / scale.float()[..., None]) + 8, 0, 15).to(torch.int32)
    wide = ((codes.float() - 8) * scale.float()[..., None]).reshape(n, k)
    codes = codes.reshape(n, k)
    if on_cpu:
        packed = torch._convert_weight_to_int4pack_for_cpu(codes, 1)
        product = torch._weight_int4pack_mm_for_cpu
    else:
        pairs = (codes[:, 0::2] << 4 | codes[:, 1::2]).to(torch.uint8)
        packed = torch._convert_weight_to_int4pack(pairs, 8)
        product = torch._weight_int4pack_mm
    grid = torch.stack([scale, torch.zeros_like(scale)], dim=-1).transpose(0, 1).contiguous()
    x, half = x.bfloat16(), None if bias is None else bias.bfloat16()
    used = x.clone()

    def call() -> torch.Tensor:
        y: torch.Tensor = product(used, packed, block, grid)
        return y if half is None else y.add_(half)

    return TorchKernel(x, used, call, product_error(x, wide, half), OTHER_BOUND, product.__name__)


def _scale(values: torch.Tensor, top: float, rows: bool) -> torch.Tensor:
    largest = values.abs().amax(dim=1, keepdim=True) if rows else values.abs().amax()
    return (largest / top).float().clamp_min(1e-12)


_PRODUCTS = {
    "fp8": _fp8,
    "fp8_row": _fp8,
    "w8a8": _int8,
    "w8a8d": _int8,
    "int8_wo": _int8_weight_only,
    "int4_wo": _int4_weight_only,
    "int4_wo_g32": _int4_weight_only,
}
