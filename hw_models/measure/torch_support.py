"""What torch has kernels for, as far as its documentation and its checks say it before anything is run."""

from __future__ import annotations

from ..kernels import Kernel
from .catalogue import format_of, is_conversion


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
