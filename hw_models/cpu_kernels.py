"""One small ONNX model per kernel, as an exported layer looks, and the data that it runs on.

=============  =======================================================================================================
weight, input  graph (x float in, y float out)
=============  =======================================================================================================
fp32, fp32     x -> op <- weight. A weight stored in codes is Cast(codes) * scale, one stored in bf16 is Cast(weight);
               both are folded to float32 when onnxruntime loads the model
fp32, bf16     x -> Cast(bf16) -> Cast(float) -> op <- weight; fp16 likewise
fp32, uint8    x -> QuantizeLinear -> DequantizeLinear -> op <- weight
int8, uint8    the same with DequantizeLinear(int8 codes) as weight. A convolution is followed by QuantizeLinear ->
               DequantizeLinear, without which it would not be fused to QLinearConv; a product is MatMul - (-bias),
               fused to MatMulIntegerToFloat. Codes stored in int4 or int2 go through Cast(int8), which is folded
fp32, int64    Gather of rows
int4, fp32     MatMulNBits (``cpu_nbits``)
=============  =======================================================================================================

(ONNX operator specifications of QuantizeLinear and DequantizeLinear; int4 from opset 21, int2 from opset 25. Which
patterns are fused was tried on onnxruntime 1.31.1: a Gemm or MatMul + Add with a float bias, for one, stays in float.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .kernels import Kernel

_OPSET, _IR = 21, 10
_OPSET_INT2, _IR_INT2 = 25, 13
_BITS = {"int8": 8, "int4": 4, "int2": 2}
_OUTPUT_SCALE_SIGMAS = 4.0


@dataclass(frozen=True)
class LayerData:
    """What a kernel computes with.

    Attributes:
        x: input: float32, or int64 indices.
        weight: float32 weight, as torch lays it out.
        bias: float32 [channels], or ``None``.
        stored: how the weight lies in the file: fp32, bf16, int8, int4, int2.
        codes: int8 codes of the weight, ``None`` for float weights.
        scale: float32 scales [weight_shape[channel_axis]] of the codes.
        x_scale: scale of the input's uint8 codes, whose zero-point is 128.
        y_scale: scale of the output's uint8 codes, whose zero-point is 128.
    """

    x: NDArray[Any]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    stored: str
    codes: NDArray[np.int8] | None
    scale: NDArray[np.float32]
    x_scale: float
    y_scale: float


def layer_data(kernel: Kernel, stored: str = "", seed: int = 0) -> LayerData:
    """Random data of the kernel's shapes: unit normal inputs, weights that keep the variance.

    Args:
        kernel: what to make data for.
        stored: how the weight lies in the file: fp32, bf16, int8, int4, int2; by default as the kernel reads it.
        seed: of the random numbers.

    Returns:
        The data.
    """
    rng = np.random.default_rng(seed)
    fan_in = int(np.prod(kernel.weight_shape)) // kernel.weight_shape[kernel.channel_axis]
    weight = (rng.standard_normal(kernel.weight_shape, dtype=np.float32) / np.sqrt(max(fan_in, 1))).astype(np.float32)
    if kernel.op == "Gather":
        x: NDArray[Any] = rng.integers(0, kernel.weight_shape[0], kernel.input_shape)
    else:
        x = rng.standard_normal(kernel.input_shape, dtype=np.float32)
    bias = rng.standard_normal(kernel.channels, dtype=np.float32) if kernel.bias else None
    stored = stored or ("fp32" if kernel.op == "MatMulNBits" else kernel.weight_format)
    codes, scale = None, np.ones(kernel.weight_shape[kernel.channel_axis], np.float32)
    if stored in _BITS:
        top = 2 ** (_BITS[stored] - 1)
        axes = tuple(axis for axis in range(weight.ndim) if axis != kernel.channel_axis)
        largest = np.abs(weight).max(axis=axes, keepdims=True)
        steps = np.maximum(largest, 1e-6) / (top - 0.5)
        codes = np.clip(np.rint(weight / steps), -top, top - 1).astype(np.int8)
        scale = steps.reshape(-1).astype(np.float32)
    return LayerData(x, weight, bias, stored, codes, scale, x_scale=8 / 255, y_scale=4 * _OUTPUT_SCALE_SIGMAS / 255)


def build(kernel: Kernel, data: LayerData) -> bytes:
    """The serialized ONNX model of a kernel: input ``x``, output ``y``."""
    if kernel.op == "MatMulNBits":
        from .cpu_nbits import build_nbits

        return build_nbits(kernel, data)
    from onnx import TensorProto, helper, numpy_helper

    graph = _Graph(helper, numpy_helper, TensorProto)
    rounded, integer = kernel.activation_format == "uint8", kernel.weight_format == "int8"
    product = kernel.op == "MatMul" or (kernel.op == "Gemm" and integer)
    weight = _weight(graph, kernel, data, as_inputs_by_outputs=product)
    x = graph.round_trip("x", data.x_scale) if rounded else "x"
    if kernel.activation_format in ("bf16", "fp16"):
        narrow = TensorProto.BFLOAT16 if kernel.activation_format == "bf16" else TensorProto.FLOAT16
        x = graph.node("Cast", [graph.node("Cast", ["x"], to=narrow)], to=TensorProto.FLOAT)
    if product:
        y = _product(graph, x, weight, data, integer)
    else:
        y = _operator(graph, kernel, x, weight, None if data.bias is None else _bias(graph, data, integer))
    if integer and kernel.op == "Conv":
        y = graph.round_trip(y, data.y_scale)
    graph.node("Identity", [y], output="y")
    kind = TensorProto.INT64 if kernel.op == "Gather" else TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("x", kind, list(kernel.input_shape))]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "kernel", inputs, outputs, graph.tensors),
        opset_imports=[helper.make_opsetid("", _OPSET_INT2 if data.stored == "int2" else _OPSET)],
        ir_version=_IR_INT2 if data.stored == "int2" else _IR,
    )
    content: bytes = model.SerializeToString()
    return content


class _Graph:
    """Nodes and initializers under construction."""

    def __init__(self, helper: Any, numpy_helper: Any, types: Any) -> None:
        self.helper, self.numpy_helper, self.types = helper, numpy_helper, types
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def node(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def tensor(self, value: NDArray[Any]) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors.append(self.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def codes(self, codes: NDArray[np.int8], storage: str) -> str:
        """An initializer of packed codes: two int4 or four int2 in a byte, the first in the low bits."""
        kind = {"int8": self.types.INT8, "int4": self.types.INT4, "int2": getattr(self.types, "INT2", 0)}[storage]
        name = f"c{len(self.tensors)}"
        self.tensors.append(self.helper.make_tensor(name, kind, codes.shape, _packed(codes, _BITS[storage]), raw=True))
        return name

    def round_trip(self, value: str, scale: float) -> str:
        """QuantizeLinear to uint8 with the zero-point 128, and DequantizeLinear."""
        grid = [self.tensor(np.array(scale, np.float32)), self.tensor(np.array(128, np.uint8))]
        return self.node("DequantizeLinear", [self.node("QuantizeLinear", [value, *grid]), *grid])


def _packed(codes: NDArray[np.int8], bits: int) -> bytes:
    per_byte = 8 // bits
    flat = codes.reshape(-1).view(np.uint8) & (2**bits - 1)
    flat = np.concatenate([flat, np.zeros(-len(flat) % per_byte, np.uint8)]).reshape(-1, per_byte)
    shifts = np.arange(per_byte, dtype=np.uint8) * bits
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(flat << shifts, axis=1)
    return packed.astype(np.uint8).tobytes()


def _weight(graph: _Graph, kernel: Kernel, data: LayerData, as_inputs_by_outputs: bool) -> str:
    """The float weight of the graph, in the layout that its operator reads."""
    flip = as_inputs_by_outputs and kernel.channel_axis == 0
    axis = 1 if flip else kernel.channel_axis
    weight = data.weight.T if flip else data.weight
    if data.stored == "fp32":
        return graph.tensor(weight)
    if data.stored == "bf16":
        from ml_dtypes import bfloat16

        return graph.node("Cast", [graph.tensor(weight.astype(bfloat16))], to=graph.types.FLOAT)
    assert data.codes is not None
    name = graph.codes(np.ascontiguousarray(data.codes.T if flip else data.codes), data.stored)
    if kernel.weight_format == "int8":
        if data.stored != "int8":
            name = graph.node("Cast", [name], to=graph.types.INT8)
        zero = graph.tensor(np.zeros(len(data.scale), np.int8))
        return graph.node("DequantizeLinear", [name, graph.tensor(data.scale), zero], axis=axis)
    wide = data.scale.reshape([-1 if position == axis else 1 for position in range(weight.ndim)])
    return graph.node("Mul", [graph.node("Cast", [name], to=graph.types.FLOAT), graph.tensor(wide)])


def _bias(graph: _Graph, data: LayerData, integer: bool) -> str:
    """The bias; beside integer kernels as int32 codes at the scale of the accumulator, x_scale * scale."""
    assert data.bias is not None
    if not integer or len(data.scale) != len(data.bias):
        return graph.tensor(data.bias)
    step = (data.scale * np.float32(data.x_scale)).astype(np.float32)
    codes = graph.tensor(np.rint(data.bias / step).astype(np.int32))
    return graph.node(
        "DequantizeLinear", [codes, graph.tensor(step), graph.tensor(np.zeros(len(step), np.int32))], axis=0
    )


def _product(graph: _Graph, x: str, weight: str, data: LayerData, integer: bool) -> str:
    y = graph.node("MatMul", [x, weight])
    if data.bias is None:
        return y
    return (
        graph.node("Sub", [y, graph.tensor(-data.bias)]) if integer else graph.node("Add", [y, graph.tensor(data.bias)])
    )


def _operator(graph: _Graph, kernel: Kernel, x: str, weight: str, bias: str | None) -> str:
    if kernel.op == "Gather":
        return graph.node("Gather", [weight, x], axis=0)
    inputs = [x, weight] if bias is None else [x, weight, bias]
    if kernel.op == "Gemm":
        return graph.node("Gemm", inputs, transB=1 - kernel.channel_axis)
    attributes: dict[str, Any] = {
        name: value[0] if name == "group" else list(value) for name, value in kernel.attributes if value
    }
    return graph.node(kernel.op, inputs, **attributes)
