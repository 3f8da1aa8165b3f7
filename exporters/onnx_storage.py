"""How the weights of each format lie in an ONNX file: the types of codes, scales and zero-points, and their names.

===================  ============================================  =====================================================
elements             codes                                         scales
===================  ============================================  =====================================================
integers, symmetric  INT2, INT4, INT8                              FLOAT; FLOAT16 for groups
asymmetric           UINT2, UINT4, UINT8, and a zero-point each    likewise
                     (UINT4 or UINT8)
e4m3, e5m2           FLOAT8E4M3FN, FLOAT8E5M2                      FLOAT; FLOAT8E8M0 (mxfp8)
other minifloats     UINT4 or UINT8, an index into a table         FLOAT; FLOAT8E8M0 (mxfp4); FLOAT8E4M3FN and one FLOAT
                                                                   for the tensor (nvfp4)
nf4                  UINT4, an index into a table                  FLOAT
===================  ============================================  =====================================================

The codes keep the name and the shape of the parameter; the others add ``.scale``, ``.zero_point``, ``.tensor_scale``.
A table of elements is stored once a file (onnxruntime has the type FLOAT4E2M1, but no cast from it on the CPU).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..evaluators.quantizers import Layout, codebook
from ..formats import TensorFormat

if TYPE_CHECKING:
    import onnx_ir as ir

    from ..evaluators.quantizers import QuantizedWeight
    from .onnx_weights import DeferredWeight

#: First operator sets with 4-bit integers, with powers of two as scales, and with 2-bit integers.
INT4_OPSET, E8M0_OPSET, INT2_OPSET = 21, 24, 25

_FLOAT8 = {(4, 3): "FLOAT8E4M3FN", (5, 2): "FLOAT8E5M2"}
_SCALES = {"fp32": "FLOAT", "fp16": "FLOAT16", "e8m0": "FLOAT8E8M0", "e4m3": "FLOAT8E4M3FN"}


def needed_opset(target: TensorFormat) -> int:
    """The oldest operator set in which a format takes no more room than ``Format.stored_bits`` says."""
    if target.number == "int" and target.bits == 2:
        return INT2_OPSET
    return E8M0_OPSET if target.scale == "e8m0" else INT4_OPSET


def refusal(target: TensorFormat) -> str:
    """Why a weight format cannot be stored; empty if it can."""
    if target.number == "float" and target.bits == 6:
        return "ONNX has no 6-bit elements; offer 4 or 8 bits, such as wmxfp4, wmxfp8, we2m1, we4m3"
    return ""


def uses_table(target: TensorFormat) -> bool:
    """Whether the codes are indices into a table of elements."""
    return target.number == "codebook" or (
        target.number == "float" and not target.is_wide and float8_type(target) is None
    )


def float8_type(target: TensorFormat) -> ir.DataType | None:
    """The ONNX type of a minifloat, if there is one."""
    import onnx_ir as ir

    name = _FLOAT8.get((target.exponent_bits, target.mantissa_bits)) if target.number == "float" else None
    return None if name is None else ir.DataType[name]


def code_type(target: TensorFormat, opset: int) -> ir.DataType:
    """The type of the codes: the smallest of an operator set that holds them."""
    import onnx_ir as ir

    if (narrow := float8_type(target)) is not None:
        return narrow
    signed = target.number == "int" and target.symmetric
    width = target.container_bits if target.number == "int" else max(4, target.container_bits)
    if width == 2 and opset < INT2_OPSET:
        width = 4
    return ir.DataType[f"{'' if signed else 'U'}INT{width}"]


def scale_type(target: TensorFormat) -> ir.DataType:
    """The type of the scales."""
    import onnx_ir as ir

    return ir.DataType[_SCALES[target.scale]]


def table_name(target: TensorFormat) -> str:
    """The name of the table of elements."""
    text = "nf4" if target.number == "codebook" else f"e{target.exponent_bits}m{target.mantissa_bits}"
    return f"bitfront.{text}"


def code_array(weight: DeferredWeight | QuantizedWeight, opset: int) -> NDArray[Any]:
    """The codes of a weight in the type of the file.

    Args:
        weight: codes and scales.
        opset: ONNX operator set.
    """
    kind = code_type(weight.target, opset)
    codes = weight.codes.cpu().numpy()
    found: NDArray[Any] = codes.view(kind.numpy()) if "FLOAT8" in kind.name else codes.astype(kind.numpy())
    return found


def scale_arrays(name: str, weight: DeferredWeight | QuantizedWeight) -> dict[str, NDArray[Any]]:
    """What stands for a weight in the file beside its codes, by name, in the types of the file.

    Args:
        name: of the parameter.
        weight: codes and scales.
    """
    import onnx_ir as ir

    target, scales = weight.target, weight.scales
    shape = () if target.granularity == "tensor" else weight.layout.scale_shape
    scale = scales.scale.float().cpu().numpy().reshape(shape).astype(scale_type(target).numpy())
    found = {f"{name}.scale": scale}
    if scales.zero_point is not None:
        narrow = ir.DataType.UINT4 if target.bits <= 4 else ir.DataType.UINT8
        found[f"{name}.zero_point"] = scales.zero_point.cpu().numpy().reshape(shape).astype(narrow.numpy())
    if scales.tensor_scale is not None:
        found[f"{name}.tensor_scale"] = scales.tensor_scale.float().cpu().numpy().reshape(())
    if uses_table(target):
        found[table_name(target)] = np.nan_to_num(codebook(target).numpy())
    return found


def decoded(stored: Mapping[str, NDArray[Any]], name: str, layout: Layout) -> NDArray[np.float32]:
    """The float32 weight that the arrays of a file stand for.

    Args:
        stored: initializers of the file by name, in the types of the file.
        name: of the parameter.
        layout: which elements share a scale.

    Raises:
        KeyError: an array is missing; it carries the name.
    """
    target, codes = layout.target, stored[name]
    elements = stored[table_name(target)][codes.astype(np.int64)] if uses_table(target) else codes.astype(np.float32)
    matrix = layout.matrix(torch.from_numpy(elements))
    if not target.symmetric:
        matrix = matrix - layout.expand(torch.from_numpy(stored[f"{name}.zero_point"].astype(np.float32)))
    factor = torch.from_numpy(stored[f"{name}.scale"].astype(np.float32))
    if target.scale == "e4m3":
        factor = factor * float(stored[f"{name}.tensor_scale"])
    found: NDArray[np.float32] = layout.tensor(matrix * layout.expand(factor)).contiguous().numpy()
    return found
