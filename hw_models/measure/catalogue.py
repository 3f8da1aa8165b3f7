"""What can be timed: products, convolutions and conversions, each in the formats that a runtime has kernels for.

A shape is a ``Kernel`` in float32; ``in_format`` turns it into the kernel of another format. Names of formats are those
of ``gemm.GEMM_FORMATS``, and a few finer ones:

===============  ======================================================================================================
format           kernel
===============  ======================================================================================================
fp32, tf32       float32 products, exact or with inputs rounded to 10 bits of mantissa by the tensor cores
fp16, bf16       16-bit products; in onnxruntime on the CPU the float32 kernel on an input rounded to 16 bits
fp8              e4m3 input and weight, one scale for each (``torch._scaled_mm``); the input comes quantized
fp8_row          the same with a scale for each row of the input and each output channel
w8a8             int8 input and weight, int32 sums, then scales (``torch._int_mm``; onnxruntime: QDQ, fused). In torch
                 the input comes quantized
w8a8d            the same behind a quantization of the input with a scale for each row, which is part of the time
int8_wo          bf16 input, int8 weight with a scale for each output channel (``torch._weight_int8pack_mm``)
int4_wo          bf16 input, 4-bit weight with a scale for each 128 inputs (``torch._weight_int4pack_mm``; in
                 onnxruntime MatMulNBits on float32 input)
int4_wo_g32      the same with a scale for each 32 inputs
int4_wo_a8       MatMulNBits with ``accuracy_level`` 4: the input is rounded to int8 in blocks
int4_wo_g32_a8   the same with a scale for each 32 inputs
===============  ======================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from ...errors import InvalidInput
from ..kernels import Kernel

Runtime = Literal["onnxruntime", "torch"]
Attributes = tuple[tuple[str, tuple[int, ...]], ...]

#: Conversions: name -> operator and format that comes out. ``quantize`` takes a static scale, ``quantize_row`` finds
#: one for each row first; ``channels_last`` and ``channels_first`` change the layout of images.
CONVERSIONS = {
    "quantize_int8": ("Quantize", "int8"),
    "quantize_fp8": ("Quantize", "fp8"),
    "quantize_row_int8": ("QuantizeRow", "int8"),
    "quantize_row_fp8": ("QuantizeRow", "fp8"),
    "dequantize_int8": ("Dequantize", "int8"),
    "dequantize_fp8": ("Dequantize", "fp8"),
    "channels_last": ("ChannelsLast", "bf16"),
    "channels_first": ("ChannelsFirst", "bf16"),
}
LAYOUTS = ("ChannelsLast", "ChannelsFirst")

_INT4: dict[str, tuple[int, int]] = {  # accuracy_level (0: as the input), block
    "int4_wo": (0, 128),
    "int4_wo_g32": (0, 32),
    "int4_wo_a8": (4, 128),
    "int4_wo_g32_a8": (4, 32),
}
_WIDE = ("fp32", "tf32", "fp16", "bf16")
_PRODUCTS = ("Gemm", "MatMul")

#: (device, runtime) -> formats of products, formats of convolutions; the first ones are asked when none are named.
FORMATS: dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]] = {
    ("cpu", "onnxruntime"): (("fp32", "w8a8", *_INT4, "bf16", "fp16"), ("fp32", "w8a8", "bf16", "fp16")),
    ("cpu", "torch"): (("fp32", "bf16", "w8a8d", "int8_wo", "int4_wo", "int4_wo_g32", "w8a8"), ("fp32", "bf16")),
    ("cuda", "torch"): (
        ("bf16", "fp16", "tf32", "fp32", "fp8", "fp8_row", "w8a8", "w8a8d", "int8_wo", "int4_wo", "int4_wo_g32"),
        ("bf16", "fp16", "tf32", "fp32"),
    ),
}


def product(m: int, n: int, k: int, bias: bool = False) -> Kernel:
    """The float32 product ``[m, k] x [k, n]`` with the weight as ``[n, k]``."""
    return Kernel("Gemm", "fp32", "fp32", (m, k), (n, k), 0, (), bias)


def convolution(
    batch: int,
    channels: int,
    height: int,
    width: int,
    out: int,
    window: int,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    dilation: int = 1,
) -> Kernel:
    """A float32 convolution of images with a square window; by default padded so that stride 1 keeps the size.

    Raises:
        InvalidInput: the groups do not divide the channels, or nothing is left of the image.
    """
    pad = dilation * (window - 1) // 2 if padding is None else padding
    if channels % groups or out % groups:
        raise InvalidInput(f"a convolution of {channels} to {out} channels cannot have {groups} groups")
    if min(height, width) + 2 * pad < dilation * (window - 1) + 1:
        raise InvalidInput(
            f"a window of {window} (dilation {dilation}) does not fit {height} x {width} padded by {pad}"
        )
    attributes = {
        "dilations": (dilation, dilation),
        "group": (groups,),
        "kernel_shape": (window, window),
        "pads": (pad, pad, pad, pad),
        "strides": (stride, stride),
    }
    shape = (out, channels // groups, window, window)
    return Kernel("Conv", "fp32", "fp32", (batch, channels, height, width), shape, 0, tuple(attributes.items()), True)


def conversion(name: str, shape: Sequence[int]) -> Kernel:
    """A conversion of an array of a shape.

    Raises:
        InvalidInput: an unknown conversion, or a layout of something that is no batch of images.
    """
    if name not in CONVERSIONS:
        raise InvalidInput(f"unknown conversion {name!r}; known: {', '.join(CONVERSIONS)}")
    op, kind = CONVERSIONS[name]
    if len(shape) != 4 if op in LAYOUTS else len(shape) < 2:
        wanted = "four dimensions (batch, channels, height, width)" if op in LAYOUTS else "at least two dimensions"
        raise InvalidInput(f"{name} takes {wanted}, got {list(shape)}")
    return Kernel(op, "none", kind, tuple(shape), (), 0)


def is_conversion(kernel: Kernel) -> bool:
    """Whether the kernel has no weight."""
    return kernel.weight_format == "none"


def in_format(base: Kernel, format_name: str, runtime: Runtime) -> Kernel | None:
    """The kernel of a float32 shape in a format; ``None`` where the runtime has no such kernel for this operator."""
    if base.op in _PRODUCTS:
        if runtime == "torch":
            base = replace(base, op="Gemm", input_shape=(_rows(base), base.input_shape[-1]))
        return _product(base, format_name, runtime)
    if base.op == "Conv":
        return _convolution(base, format_name, runtime)
    if base.op == "ConvTranspose":
        return base if format_name == "fp32" and runtime == "onnxruntime" else None
    if base.op == "Gather":
        return base if format_name == "fp32" and runtime == "onnxruntime" else None
    raise InvalidInput(f"{base.op} has no formats")


def in_formats(bases: Iterable[Kernel], formats: Sequence[str], runtime: Runtime) -> list[Kernel]:
    """The kernels of shapes in formats, those of one shape side by side, each once."""
    found = (in_format(base, name, runtime) for base in bases for name in formats)
    return list(dict.fromkeys(kernel for kernel in found if kernel is not None))


def format_of(kernel: Kernel) -> str:
    """The name of a kernel's format, as in ``FORMATS``; of a conversion, its name."""
    attributes = dict(kernel.attributes)
    if is_conversion(kernel):
        return next(name for name, made in CONVERSIONS.items() if made == (kernel.op, kernel.activation_format))
    if kernel.weight_format == "int4":
        key = (attributes.get("accuracy_level", (0,))[0], attributes["block_size"][0])
        return next(name for name, made in _INT4.items() if made == key)
    if kernel.weight_format == "fp8":
        return "fp8_row" if "row_scales" in attributes else "fp8"
    if kernel.weight_format == "int8":
        if kernel.activation_format == "bf16":
            return "int8_wo"
        return "w8a8d" if "row_scales" in attributes else "w8a8"
    if kernel.activation_format == "uint8":
        return "fp32_a8"  # the float kernel on rounded input
    return kernel.activation_format if kernel.activation_format in _WIDE else kernel.weight_format


def _product(base: Kernel, name: str, runtime: Runtime) -> Kernel | None:
    if name in _WIDE:
        if runtime == "torch":
            return replace(base, weight_format=name, activation_format=name)
        return replace(base, activation_format=name) if name != "tf32" else None
    if name in _INT4:
        level, block = _INT4[name]
        attributes: Attributes = (("block_size", (block,)),)
        if runtime == "onnxruntime":
            attributes = (("accuracy_level", (level,)), *attributes)
            return replace(base, op="MatMulNBits", weight_format="int4", attributes=attributes)
        return (
            replace(base, weight_format="int4", activation_format="bf16", attributes=attributes) if not level else None
        )
    if name == "w8a8":
        entered = "uint8" if runtime == "onnxruntime" else "int8"
        return replace(base, weight_format="int8", activation_format=entered)
    if runtime == "onnxruntime":
        return None
    rows: Attributes = (("row_scales", (1,)),)
    made = {
        "fp8": replace(base, weight_format="fp8", activation_format="fp8"),
        "fp8_row": replace(base, weight_format="fp8", activation_format="fp8", attributes=rows),
        "w8a8d": replace(base, weight_format="int8", activation_format="int8", attributes=rows),
        "int8_wo": replace(base, weight_format="int8", activation_format="bf16"),
    }
    return made.get(name)


def _convolution(base: Kernel, name: str, runtime: Runtime) -> Kernel | None:
    if name in _WIDE:
        if runtime == "torch":
            return replace(base, weight_format=name, activation_format=name) if len(base.input_shape) == 4 else None
        return replace(base, activation_format=name) if name != "tf32" else None
    if name == "w8a8" and runtime == "onnxruntime":
        return replace(base, weight_format="int8", activation_format="uint8")
    return None


def _rows(kernel: Kernel) -> int:
    rows = 1
    for size in kernel.input_shape[:-1]:
        rows *= size
    return rows
