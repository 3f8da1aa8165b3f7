"""Quantized weights as ONNX initializers: packed codes, scales, and the nodes that turn them back into floats.

A float weight initializer is replaced by integer codes and one float32 scale per channel. Two ways lead back:

``Cast(codes) * scale``
    for products in floating point. onnxruntime folds it while loading, so the model runs at float speed. (Its
    ``DequantizeLinear`` would not be folded: a convolution would dequantize its weight in every run, and a product
    would become ``MatMulNBits``, which rounds the activations to 8 bits: another function than the one measured.)
``DequantizeLinear``
    for products that onnxruntime fuses into an integer kernel together with the rounding of the input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import onnx_ir as ir

    from ..evaluators.quantizers import QuantizedWeight

#: First operator set with 4-bit and with 2-bit integers.
INT4_OPSET, INT2_OPSET = 21, 25


def container(bits: int, opset: int) -> ir.DataType:
    """The smallest integer type of an operator set that holds codes of so many bits."""
    import onnx_ir as ir

    if bits <= 2 and opset >= INT2_OPSET and hasattr(ir.DataType, "INT2"):
        return ir.DataType.INT2
    return ir.DataType.INT4 if bits <= 4 else ir.DataType.INT8


class StoredWeight:
    """A weight initializer that is being replaced.

    Args:
        graph: the graph that holds it.
        initializer: the float initializer.
        weight: codes and scales.
        bits: width of the codes.
        opset: ONNX operator set.
    """

    def __init__(self, graph: ir.Graph, initializer: ir.Value, weight: QuantizedWeight, bits: int, opset: int) -> None:
        import onnx_ir as ir

        self._graph = graph
        self._initializer = initializer
        self._axis = weight.channel_axis
        self._rank = weight.codes.ndim
        name = str(initializer.name)
        self._type = container(bits, opset)
        codes = weight.codes.cpu().numpy().astype(self._type.numpy())
        del graph.initializers[name]
        self._codes = register(graph, ir.Tensor(codes, name=name))
        self._scale = register(graph, ir.Tensor(weight.scale.float().cpu().numpy(), name=f"{name}.scale"))
        self._float: ir.Value | None = None
        self._transposed: dict[bool, ir.Value] = {}

    def as_float(self) -> ir.Value:
        """``Cast(codes) * scale``, in the layout of the float weight."""
        import onnx_ir as ir

        if self._float is None:
            scale = self._scale
            if self._axis != self._rank - 1:
                after = ir.Tensor(np.arange(1, self._rank - self._axis, dtype=np.int64), name=f"{scale.name}.axes")
                axes = register(self._graph, after)
                scale = self._prepend("Unsqueeze", [scale, axes], ir.DataType.FLOAT)
            cast = self._prepend("Cast", [self._codes], ir.DataType.FLOAT, to=int(ir.DataType.FLOAT))
            self._float = self._prepend("Mul", [cast, scale], ir.DataType.FLOAT)
            self._float.shape = self._codes.shape
        return self._float

    def dequantized(self, transpose: bool = False) -> ir.Value:
        """``DequantizeLinear`` of the codes, which are cast to int8 first.

        Args:
            transpose: whether to give the transposed matrix. The codes of a pointwise convolution are a matrix too.
        """
        import onnx_ir as ir

        if transpose not in self._transposed:
            codes, axis = self._codes, self._axis
            if self._type != ir.DataType.INT8:
                codes = self._prepend("Cast", [codes], ir.DataType.INT8, to=int(ir.DataType.INT8))
            if transpose and self._rank > 2:
                shape = ir.Tensor(np.array([0, -1], dtype=np.int64), name=f"{self._codes.name}.matrix")
                codes = self._prepend("Reshape", [codes, register(self._graph, shape)], ir.DataType.INT8)
            if transpose:
                codes, axis = self._prepend("Transpose", [codes], ir.DataType.INT8, perm=[1, 0]), 1 - axis
            inputs = [codes, self._scale]
            self._transposed[transpose] = self._prepend("DequantizeLinear", inputs, ir.DataType.FLOAT, axis=axis)
        return self._transposed[transpose]

    def replace_float(self) -> None:
        """Let every remaining use of the float initializer read the codes."""
        if self._initializer.uses() or self._initializer.is_graph_output():
            import onnx_ir as ir

            ir.convenience.replace_all_uses_with(self._initializer, self.as_float(), replace_graph_outputs=True)

    def _prepend(
        self, operator: str, inputs: list[ir.Value], dtype: ir.DataType, **attributes: int | list[int]
    ) -> ir.Value:
        return prepend(self._graph, operator, inputs, dtype, **attributes)


def store_bfloat16(graph: ir.Graph, initializer: ir.Value, rounded: Tensor) -> None:
    """Store a weight as bfloat16 and cast it back to float32 where it is used.

    Args:
        graph: the graph that holds it.
        initializer: the float initializer.
        rounded: the weight, rounded to values that bfloat16 holds exactly.
    """
    import ml_dtypes
    import onnx_ir as ir

    name = str(initializer.name)
    values = rounded.detach().to(torch.bfloat16).cpu().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    del graph.initializers[name]
    stored = register(graph, ir.Tensor(values, name=name))
    cast = prepend(graph, "Cast", [stored], ir.DataType.FLOAT, to=int(ir.DataType.FLOAT))
    cast.shape = stored.shape
    ir.convenience.replace_all_uses_with(initializer, cast, replace_graph_outputs=True)


def prepend(
    graph: ir.Graph, operator: str, inputs: list[ir.Value], dtype: ir.DataType, **attributes: int | list[int]
) -> ir.Value:
    """A node before all nodes that are not such a node themselves; its output."""
    import onnx_ir as ir

    node = ir.node(operator, inputs, attributes)
    node.outputs[0].dtype = dtype
    count = graph.meta.setdefault("bitfront.prepended", 0)
    if len(graph) > count:
        graph.insert_before(graph[count], node)
    else:
        graph.append(node)
    graph.meta["bitfront.prepended"] = count + 1
    return node.outputs[0]


def register(graph: ir.Graph, tensor: ir.TensorProtocol) -> ir.Value:
    """A new initializer, or the one of that name if there is one already."""
    import onnx_ir as ir

    name = str(tensor.name)
    if name not in graph.initializers:
        kind, shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        graph.register_initializer(ir.Value(name=name, shape=shape, type=kind, const_value=tensor))
    return graph.initializers[name]
