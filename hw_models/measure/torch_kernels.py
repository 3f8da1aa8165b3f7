"""A kernel in torch: its data on a device, the call that is timed, and what the call must give.

The same code serves the CPU and CUDA. The reference is computed in float64 from the operands as the kernel reads them
(dequantized), on the first rows and output channels, so that ``TorchKernel.error`` is the kernel's own rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import NotMeasured
from ..kernels import Kernel
from .catalogue import format_of, is_conversion

if TYPE_CHECKING:
    import torch

#: Rows and output channels that are compared with the reference.
CHECKED = 16
#: Format -> largest relative error (Frobenius norm) that the kernel's rounding explains.
BOUNDS = {"fp32": 1e-4, "tf32": 5e-3}
OTHER_BOUND = 2e-2
_FP8_TOP, _INT8_TOP = 448.0, 127.0

Call = Callable[[], "torch.Tensor"]
Compare = Callable[["torch.Tensor"], float]


@dataclass(frozen=True)
class TorchKernel:
    """A kernel ready to run.

    Attributes:
        fresh: the input's values.
        x: the input that the call reads.
        call: what is timed.
        compare: relative error of the call's output.
        bound: the error that the format explains.
        executed: the operators of torch that the call runs, joined by ``+``.
        tf32: whether float32 products may round their inputs to tf32 while the call runs.
    """

    fresh: torch.Tensor
    x: torch.Tensor
    call: Call
    compare: Compare
    bound: float
    executed: str
    tf32: bool = False

    def prepare(self) -> None:
        """Set the precision and write the input, as the layer before would have."""
        import torch

        torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
        if torch.backends.cudnn.allow_tf32 != self.tf32:
            torch.backends.cudnn.allow_tf32 = self.tf32
        self.x.copy_(self.fresh)

    def run(self) -> None:
        """One call."""
        self.call()

    def error(self) -> float:
        """Relative error of one call against the reference."""
        self.prepare()
        return self.compare(self.call())


def refusal(kernel: Kernel, device: str, capability: tuple[int, int] | None = None) -> str | None:
    """Why a kernel cannot run on a device, or ``None``.

    Args:
        kernel: what is asked.
        device: ``"cpu"`` or ``"cuda"``.
        capability: compute capability of the GPU.
    """
    name = format_of(kernel)
    if is_conversion(kernel) or kernel.op == "Conv":
        if kernel.activation_format == "fp8" and capability is not None and capability < (8, 9):
            return f"{name}: this GPU (compute capability {capability[0]}.{capability[1]}) has no fp8"
        return None
    if kernel.op != "Gemm":
        return f"{kernel.op} is not timed in torch"
    (m, k), n = kernel.input_shape, kernel.weight_shape[0]
    block = dict(kernel.attributes).get("block_size", (1,))[0]
    if name.startswith("int4_wo") and (k % block or n % 16):
        return f"{name}: torch takes k in multiples of {block} and n in multiples of 16"
    if device == "cpu":
        return None
    assert capability is not None
    if name.startswith("fp8") and capability < (8, 9):
        return f"{name}: this GPU (compute capability {capability[0]}.{capability[1]}) has no fp8 products"
    if name in ("bf16", "tf32", "int8_wo", "int4_wo", "int4_wo_g32") and capability < (8, 0):
        return f"{name}: this GPU (compute capability {capability[0]}.{capability[1]}) has no such kernel"
    if name.startswith("fp8") and (n % 16 or k % 16):
        return f"{name}: torch._scaled_mm takes n and k in multiples of 16"
    if name.startswith("w8a8") and (m <= 16 or n % 8 or k % 8):
        return f"{name}: torch._int_mm takes more than 16 rows, and n and k in multiples of 8"
    return None


def load(kernel: Kernel, device: str, seed: int = 0) -> TorchKernel:
    """Make random data on a device and the call that computes with it.

    Raises:
        NotMeasured: torch has no such kernel.
    """
    import torch

    generator = torch.Generator(device=device).manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    if is_conversion(kernel):
        from .torch_conversions import conversion

        return conversion(kernel, normal(*kernel.input_shape))
    if kernel.op == "Conv":
        return _convolution(kernel, normal)
    if kernel.op != "Gemm":
        raise NotMeasured(f"{kernel.op} is not timed in torch; offer products and convolutions")
    x = normal(*kernel.input_shape)
    n, k = kernel.weight_shape if kernel.channel_axis == 0 else kernel.weight_shape[::-1]
    weight = normal(n, k) / k**0.5
    bias = normal(n) if kernel.bias else None
    name = format_of(kernel)
    if name in _PRODUCTS:
        return _PRODUCTS[name](kernel, x, weight, bias)
    return _WIDE_PRODUCT(kernel, x, weight, bias)


def _wide(kernel: Kernel, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> TorchKernel:
    import torch.nn.functional as F

    kind = _dtype(kernel.activation_format)
    x, weight, bias = x.to(kind), weight.to(kind), None if bias is None else bias.to(kind)
    used = x.clone()
    name = format_of(kernel)
    return TorchKernel(
        x,
        used,
        lambda: F.linear(used, weight, bias),
        _product_error(x, weight, bias),
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
    return TorchKernel(codes, used, call, _product_error(*wide, half), OTHER_BOUND, "_scaled_mm")


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
    compare = _product_error(wide, weight_codes.float() * weight_scale.t(), half)
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

    compare = _product_error(x, codes.float() * scale.float(), half)
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

    return TorchKernel(x, used, call, _product_error(x, wide, half), OTHER_BOUND, product.__name__)


_PRODUCTS = {
    "fp8": _fp8,
    "fp8_row": _fp8,
    "w8a8": _int8,
    "w8a8d": _int8,
    "int8_wo": _int8_weight_only,
    "int4_wo": _int4_weight_only,
    "int4_wo_g32": _int4_weight_only,
}
_WIDE_PRODUCT = _wide


def _convolution(kernel: Kernel, normal: Callable[..., torch.Tensor]) -> TorchKernel:
    """A convolution in the channels-last layout."""
    import torch
    import torch.nn.functional as F

    attributes = dict(kernel.attributes)
    pads, kind = attributes["pads"], _dtype(kernel.activation_format)
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
        return _relative(y[:1], wanted)

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


def _product_error(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> Compare:
    wanted = x[:CHECKED].double() @ weight[:CHECKED].double().t()
    if bias is not None:
        wanted = wanted + bias[:CHECKED].double()
    return lambda y: _relative(y[:CHECKED, :CHECKED], wanted)


def _relative(y: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((y.double() - wanted).norm() / wanted.norm())


def _scale(values: torch.Tensor, top: float, rows: bool) -> torch.Tensor:
    largest = values.abs().amax(dim=1, keepdim=True) if rows else values.abs().amax()
    return (largest / top).float().clamp_min(1e-12)


def _dtype(name: str) -> torch.dtype:
    import torch

    return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(name, torch.float32)
