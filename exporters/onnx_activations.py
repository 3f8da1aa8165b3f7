"""Rounded inputs in ONNX: every marker of the trace becomes the rounding that the fake-quantized model does there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ..evaluators.quantizers import ActivationQuantizer, Quantizer
from ..formats import Format
from .onnx_rounding import Rounding, unsigned
from .onnx_simplify import constant
from .onnx_trace import DOMAIN
from .protocol import ExportRequest

if TYPE_CHECKING:
    import onnx_ir as ir

#: Operators that move elements or pick the largest of some: rounding before or after them is the same.
_MOVES = frozenset({"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "MaxPool"})


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
        self._quantizers: dict[ir.Node, Quantizer] = {}
        for node in graph:
            if node.domain != DOMAIN:
                continue
            site, module = (node.attributes[key].as_string() for key in ("site", "module"))
            activation = Format.parse(request.configuration[site]).activation
            assert activation is not None
            self._quantizers[node] = unsigned(request.quantized.calibration.activation(module, activation))

    def is_integer(self, node: ir.Node | None) -> bool:
        """Whether the node is a marker whose input is rounded to integers with one static scale."""
        return node is not None and isinstance(self._quantizers.get(node), ActivationQuantizer)

    def output_is_rounded(self, value: ir.Value) -> bool:
        """Whether the value goes nowhere but into one and the same rounding to integers.

        Operators that only move elements may lie between: the runtime rounds before them, and then computes the
        producer of the value together with its rounding as one integer kernel.
        """
        quantizers = self._destinations(value)
        return len(quantizers) == 1 and isinstance(quantizers.pop(), ActivationQuantizer)

    def reaches_rounding(self, value: ir.Value) -> bool:
        """Whether the value goes into a static rounding to integers, among other things.

        Operators that the runtime may fuse with the producer of the value may lie between.
        """
        return any(isinstance(quantizer, ActivationQuantizer) for quantizer in self._destinations(value, fused=True))

    def drop_implied_bounds(self) -> None:
        """Remove every ReLU and clip that the roundings behind it imply.

        Rounding is monotone, so Q(clip(x, a, b)) = clip(Q(x), Q(a), Q(b)), which is Q(x) where a and b round to the
        first and the last code: the same codes from one operator less, and a convolution next to its rounding.
        """
        import onnx_ir as ir

        for node in reversed(list(self._graph)):
            bounds = _bounds(node)
            quantizers = self._destinations(node.outputs[0]) if bounds else set()
            if bounds and quantizers and all(_implies(quantizer, bounds) for quantizer in quantizers):
                assert node.inputs[0] is not None
                ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
                self._graph.remove(node, safe=True)

    def leave_to(self, site: str) -> None:
        """Drop the markers of a site whose products round their input themselves."""
        import onnx_ir as ir

        for node in [node for node in self._quantizers if node.attributes["site"].as_string() == site]:
            assert node.inputs[0] is not None
            ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
            self._graph.remove(node, safe=True)
            del self._quantizers[node]

    def apply(self) -> None:
        """Replace the markers. Markers that round one tensor alike share one pair of nodes."""
        import onnx_ir as ir

        done: dict[tuple[ir.Value, Quantizer], ir.Value] = {}
        for node, quantizer in self._quantizers.items():
            source = node.inputs[0]
            assert source is not None
            if (source, quantizer) not in done:
                done[source, quantizer] = Rounding(self._graph, node, source).by(quantizer)
            ir.convenience.replace_all_uses_with(node.outputs[0], done[source, quantizer], replace_graph_outputs=True)
            self._graph.remove(node)

    def _destinations(self, value: ir.Value, fused: bool = False) -> set[Quantizer | None]:
        """The quantizers that a value reaches; ``None`` stands for any other use.

        Args:
            value: of the graph.
            fused: whether bounds, normalizations and constant factors and terms may lie between.
        """
        if value.is_graph_output():
            return {None}
        found: set[Quantizer | None] = set()
        for node, index in value.uses():
            if node in self._quantizers:
                found.add(self._quantizers[node])
            elif (index == 0 and node.domain == "" and node.op_type in _MOVES) or (fused and _is_fusible(node)):
                found |= self._destinations(node.outputs[0], fused)
            else:
                found.add(None)
        return found


def _implies(quantizer: Quantizer | None, bounds: tuple[float, float]) -> bool:
    if not isinstance(quantizer, ActivationQuantizer):
        return False
    first, last = quantizer.codes(torch.tensor(bounds, dtype=torch.float32)).tolist()
    return (first, last) == (0, 2**quantizer.bits - 1)


def _is_fusible(node: ir.Node) -> bool:
    """Whether a node bounds, scales or shifts one tensor by constants."""
    if node.domain != "" or node.op_type not in ("BatchNormalization", "Add", "Sub", "Mul", "Div"):
        return _bounds(node) is not None
    return sum(constant(value) is None for value in node.inputs) == 1


def _bounds(node: ir.Node) -> tuple[float, float] | None:
    """The bounds that a node puts on its first input, if they are constants and that is all it does."""
    if node.domain != "" or node.op_type not in ("Relu", "Clip", "Max", "Min"):
        return None
    if node.op_type == "Relu":
        return 0.0, math.inf
    limits = [-math.inf, math.inf]
    for position, value in enumerate(node.inputs[1:]):
        if value is None:
            continue
        numbers = constant(value)
        if numbers is None or len(numbers) != 1:
            return None
        limits[1 if node.op_type == "Min" else position] = numbers[0]
    return (limits[0], limits[1]) if len(node.inputs) <= (3 if node.op_type == "Clip" else 2) else None
