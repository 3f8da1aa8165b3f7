"""Rounded inputs in ONNX: every marker of the trace becomes the rounding that the fake-quantized model does there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..evaluators.quantizers import ActivationQuantizer
from ..formats import Format
from .onnx_trace import DOMAIN
from .protocol import ExportRequest

if TYPE_CHECKING:
    import onnx_ir as ir

_CONTAINER_TOP = 255


class InputRounding:
    """The markers of a graph and what each of them rounds to.

    Args:
        graph: a traced graph.
        request: configuration and calibration.

    Raises:
        InvalidInput: a range is missing in the calibration.
    """

    def __init__(self, graph: ir.Graph, request: ExportRequest) -> None:
        self._graph = graph
        self._quantizers: dict[ir.Node, ActivationQuantizer | None] = {}
        for node in graph:
            if node.domain != DOMAIN:
                continue
            site, module = (node.attributes[key].as_string() for key in ("site", "module"))
            activation = Format.parse(request.configuration[site]).activation
            assert activation is not None
            integer = activation.number == "int"
            self._quantizers[node] = (
                request.quantized.calibration.activation(module, activation.bits) if integer else None
            )

    def is_integer(self, node: ir.Node | None) -> bool:
        """Whether the node is a marker whose input is rounded to integers."""
        return node is not None and self._quantizers.get(node) is not None

    def output_is_rounded(self, value: ir.Value) -> bool:
        """Whether the value goes nowhere but into one and the same rounding to integers.

        Shape operators and maxima may lie between, and bounds that the rounding implies: the runtime then computes
        the producer of the value and the rounding as one integer kernel.
        """
        quantizers = self._destinations(value)
        return len(quantizers) == 1 and None not in quantizers

    def apply(self) -> None:
        """Replace the markers. Markers that round one tensor alike share one pair of nodes."""
        for node, quantizer in self._quantizers.items():
            if quantizer is not None and self._bounds_are_implied(node.inputs[0]):
                producer = _producer(node.inputs[0])
                node.replace_input_with(0, producer.inputs[0])
        done: dict[tuple[ir.Value, ActivationQuantizer | None], ir.Value] = {}
        for node, quantizer in self._quantizers.items():
            source = node.inputs[0]
            assert source is not None
            if (source, quantizer) not in done:
                done[source, quantizer] = self._rounded(node, source, quantizer)
            import onnx_ir as ir

            ir.convenience.replace_all_uses_with(node.outputs[0], done[source, quantizer], replace_graph_outputs=True)
            self._graph.remove(node)

    def _destinations(self, value: ir.Value) -> set[ActivationQuantizer | None]:
        """The quantizers that a value reaches; ``None`` stands for any other use."""
        if value.is_graph_output():
            return {None}
        found: set[ActivationQuantizer | None] = set()
        for node, index in value.uses():
            if node in self._quantizers:
                found.add(self._quantizers[node])
            elif index == 0 and (
                node.op_type in ("Reshape", "Transpose", "MaxPool", "Flatten")
                or (node.op_type in ("Relu", "Clip") and self._bounds_are_implied(node.outputs[0]))
            ):
                found |= self._destinations(node.outputs[0])
            else:
                found.add(None)
        return found

    def _bounds_are_implied(self, value: ir.Value | None) -> bool:
        """Whether the value is a ReLU or clip that every use of it makes redundant.

        Rounding is monotone, so Q(clip(x, a, b)) = clip(Q(x), Q(a), Q(b)), which is Q(x) where a and b round to the
        first and the last code.
        """
        bounds = _bounds(value)
        if bounds is None or value is None or value.is_graph_output():
            return False
        for node, _ in value.uses():
            quantizer = self._quantizers.get(node)
            if quantizer is None:
                return False
            low, high = quantizer.codes(torch.tensor(bounds, dtype=torch.float32)).tolist()
            if (low, high) != (0, 2**quantizer.bits - 1):
                return False
        return True

    def _rounded(self, before: ir.Node, value: ir.Value, quantizer: ActivationQuantizer | None) -> ir.Value:
        import onnx_ir as ir

        def add(operator: str, inputs: list[ir.Value | None], dtype: ir.DataType, **attributes: int) -> ir.Value:
            node = ir.node(operator, inputs, attributes)
            node.outputs[0].dtype, node.outputs[0].shape = dtype, value.shape
            self._graph.insert_before(before, node)
            return node.outputs[0]

        if quantizer is None:
            narrow = add("Cast", [value], ir.DataType.BFLOAT16, to=int(ir.DataType.BFLOAT16))
            return add("Cast", [narrow], ir.DataType.FLOAT, to=int(ir.DataType.FLOAT))
        scale = self._scalar(np.float32(quantizer.scale), f"scale_{quantizer.scale!r}")
        zero_point = self._scalar(np.uint8(quantizer.zero_point), f"zero_point_{quantizer.zero_point}")
        codes = add("QuantizeLinear", [value, scale, zero_point], ir.DataType.UINT8)
        top = 2**quantizer.bits - 1
        if top < _CONTAINER_TOP:
            codes = add("Clip", [codes, None, self._scalar(np.uint8(top), f"top_{top}")], ir.DataType.UINT8)
        return add("DequantizeLinear", [codes, scale, zero_point], ir.DataType.FLOAT)

    def _scalar(self, number: np.float32 | np.uint8, name: str) -> ir.Value:
        import onnx_ir as ir

        name = f"{DOMAIN}.{name}"
        if name not in self._graph.initializers:
            tensor = ir.Tensor(np.array(number), name=name)
            value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
            self._graph.register_initializer(value)
        return self._graph.initializers[name]


def _producer(value: ir.Value | None) -> ir.Node:
    node = None if value is None else value.producer()
    assert node is not None
    return node


def _bounds(value: ir.Value | None) -> tuple[float, float] | None:
    """The constant bounds of a value that a ReLU or a clip produces."""
    import onnx_ir as ir

    node = None if value is None else value.producer()
    if node is None or node.op_type not in ("Relu", "Clip"):
        return None
    if node.op_type == "Relu":
        return 0.0, float("inf")
    bounds = [-float("inf"), float("inf")]
    for position, limit in enumerate(node.inputs[1:]):
        if limit is None:
            continue
        constant = ir.convenience.get_const_tensor(limit)
        if constant is None:
            return None
        bounds[position] = float(constant.numpy())
    return bounds[0], bounds[1]
