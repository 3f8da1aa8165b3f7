r"""Quantized weights in OpenVINO's form: narrow constants, and the operators that turn them back into floats.

.. math:: w = (\mathrm{Convert}(q) - \mathrm{Convert}(z)) \cdot \mathrm{Convert}(s)

=====================  =============================  ==========================================================
elements               codes                          scales
=====================  =============================  ==========================================================
integers, symmetric    u2 (with the zero-point 2),    f32; f16 for groups
                       i4, i8
asymmetric             u2, u4, u8, and a zero-point   likewise
                       each (u4 or u8)
e4m3, e5m2, e2m1       f8e4m3, f8e5m2, f4e2m1         f32; f8e8m0 (mxfp8, mxfp4); f8e4m3 and one f32 for the
                                                      tensor (nvfp4)
nf4                    nf4                            f32
=====================  =============================  ==========================================================

This is the pattern that OpenVINO keeps packed in memory for matrix products and embeddings, and folds into int8 for
convolutions and products whose input is rounded to integers. The constants are named after the parameter, with
``.scale``, ``.zero_point`` and ``.tensor_scale`` appended. Weights with groups lie as [channels, groups, group], with
squares as [down, side, across, side]; all others in their own shape.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..evaluators.quantizers import Layout
from ..formats import TensorFormat
from .bit_packing import packed

if TYPE_CHECKING:
    import openvino as ov

    from ..evaluators.quantizers import QuantizedWeight

_FLOATS = {(4, 3): "f8e4m3", (5, 2): "f8e5m2", (2, 1): "f4e2m1"}
_SCALES = {"fp32": "f32", "fp16": "f16", "e8m0": "f8e8m0", "e4m3": "f8e4m3"}
#: Zero-point of symmetric 2-bit codes, which are stored unsigned.
TWO_BIT_ZERO = 2


def refusal(target: TensorFormat, shape: tuple[int, ...] | None = None, channel_axis: int = 0) -> str:
    """Why a weight format cannot be stored; empty if it can.

    Args:
        target: of the weight.
        shape: of the weight, if it is known.
        channel_axis: axis of its output channels.
    """
    if target.number == "float" and not target.is_wide and (target.exponent_bits, target.mantissa_bits) not in _FLOATS:
        return "OpenVINO has the minifloats e4m3, e5m2 and e2m1 only"
    if target.granularity == "block" and shape is not None:
        channels, elements = Layout(shape, channel_axis, target).matrix_shape
        if channels % target.group or elements % target.group:
            return f"squares of {target.group} do not divide a weight of {channels} x {elements}"
    return ""


def code_type(target: TensorFormat) -> str:
    """OpenVINO's element type of the codes."""
    if target.number == "codebook":
        return "nf4"
    if target.number == "float":
        return _FLOATS[target.exponent_bits, target.mantissa_bits]
    width = target.container_bits
    return f"{'i' if target.symmetric and width > 2 else 'u'}{width}"


def scale_type(target: TensorFormat) -> str:
    """OpenVINO's element type of the scales."""
    return _SCALES[target.scale]


def zero_point_type(target: TensorFormat) -> str:
    """OpenVINO's element type of the zero-points of asymmetric codes."""
    return "u4" if target.bits <= 4 else "u8"


def bits_of(element_type: str) -> int:
    """Bits of one element."""
    known = {"nf4": 4, "f4e2m1": 4, "f8e4m3": 8, "f8e5m2": 8, "f8e8m0": 8}
    return known[element_type] if element_type in known else int(element_type.lstrip("abefiu"))


def cells(layout: Layout) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes in which codes and scales are stored, so that one multiplies the other."""
    target = layout.target
    channels, elements = layout.matrix_shape
    if target.granularity == "group":
        return (channels, elements // target.group, target.group), (channels, elements // target.group, 1)
    if target.granularity == "block":
        down, across = channels // target.group, elements // target.group
        return (down, target.group, across, target.group), (down, 1, across, 1)
    shape = layout.shape
    spread = [1] * len(shape)
    if target.granularity == "channel":
        spread[layout.channel_axis] = channels
    return shape, tuple(spread)


def decompression(name: str, weight: QuantizedWeight, integer: bool) -> ov.Node:
    """The constants of a weight, and the operators behind them.

    Args:
        name: of the parameter.
        weight: codes and scales.
        integer: whether the codes are to be multiplied as int8 with rounded inputs: they are then made int8 first,
            which is the form that OpenVINO's low-precision transformations recognize for narrower ones.

    Returns:
        A node whose output is the float32 weight.
    """
    from openvino import Type
    from openvino import opset15 as operators

    target, layout = weight.target, weight.layout
    if target.granularity in ("group", "block") or layout.channel_axis == 0:
        codes = layout.matrix(weight.codes).cpu().numpy()
    else:
        codes = weight.codes.cpu().numpy()
    shape, spread = cells(layout)
    kind = code_type(target)
    shift = TWO_BIT_ZERO if kind == "u2" and target.symmetric else 0
    constant_codes = _constant(name, packed((codes + shift).astype(codes.dtype), bits_of(kind)), shape, kind)
    if integer and target.number == "int" and target.symmetric:
        found = constant_codes if kind == "i8" else operators.convert(constant_codes, Type.i8)
        if shift:
            found = operators.subtract(found, operators.constant(np.int8(shift)))
        if found is not constant_codes:
            found.set_friendly_name(f"{name}.int8")  # what OpenVINO folds them to keeps this name
        found = operators.convert(found, Type.f32)
    else:
        found = operators.convert(constant_codes, Type.f32)
        if shift:
            found = operators.subtract(found, operators.constant(np.float32(shift)))
    scales = weight.scales
    if scales.zero_point is not None:
        wide = zero_point_type(target)
        zeros = packed(scales.zero_point.cpu().numpy().astype(np.uint8), bits_of(wide))
        found = operators.subtract(
            found, operators.convert(_constant(f"{name}.zero_point", zeros, spread, wide), Type.f32)
        )
    found = operators.multiply(found, _factor(name, weight, spread))
    if shape != layout.shape:
        found = operators.reshape(
            found, operators.constant(np.array(layout.matrix_shape, np.int64)), special_zero=False
        )
        if layout.channel_axis != 0:
            found = operators.transpose(found, operators.constant(np.array([1, 0], np.int64)))
    return found


def half(name: str, rounded: Any, bfloat: bool) -> ov.Node:
    """A weight in bf16 or f16 and its conversion to float32.

    Args:
        name: of the parameter.
        rounded: float32 tensor of values that the format holds exactly.
        bfloat: bf16 rather than f16.
    """
    import torch
    from openvino import Type
    from openvino import opset15 as operators

    narrow = rounded.detach().cpu().to(torch.bfloat16 if bfloat else torch.float16)
    data = np.frombuffer(narrow.contiguous().view(torch.int16).numpy().tobytes(), np.uint8)
    constant = _constant(name, data, tuple(rounded.shape), "bf16" if bfloat else "f16")
    return operators.convert(constant, Type.f32)


def _factor(name: str, weight: QuantizedWeight, spread: tuple[int, ...]) -> ov.Node:
    """The scales in float32, times that of the tensor where there is one."""
    import onnx_ir as ir
    from openvino import Type
    from openvino import opset15 as operators

    target, scales = weight.target, weight.scales
    kind = scale_type(target)
    values = scales.scale.float().cpu().numpy()
    narrow = {"f32": "FLOAT", "f16": "FLOAT16", "f8e8m0": "FLOAT8E8M0", "f8e4m3": "FLOAT8E4M3FN"}[kind]
    data = np.frombuffer(np.ascontiguousarray(values.astype(ir.DataType[narrow].numpy())).tobytes(), np.uint8)
    found = _constant(f"{name}.scale", data, spread, kind)
    if kind != "f32":
        found = operators.convert(found, Type.f32)
    if scales.tensor_scale is not None:
        whole = np.frombuffer(scales.tensor_scale.float().cpu().numpy().tobytes(), np.uint8)
        found = operators.multiply(found, _constant(f"{name}.tensor_scale", whole, (), "f32"))
    return found


def _constant(name: str, data: NDArray[np.uint8], shape: tuple[int, ...], kind: str) -> ov.Node:
    """A named constant of an element type from its bytes."""
    import openvino as ov

    expected = math.ceil(math.prod(shape) * bits_of(kind) / 8)
    assert data.nbytes == expected, f"{name}: {data.nbytes} bytes for {shape} of {kind}"
    tensor = ov.Tensor(np.ascontiguousarray(data), ov.Shape(list(shape)), getattr(ov.Type, kind))
    constant = ov.op.Constant(tensor, shared_memory=False)
    constant.set_friendly_name(name)
    return constant
