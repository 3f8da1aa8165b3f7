"""The graph that every target built on ONNX starts from: traced, simplified, with the biases that were measured."""

from __future__ import annotations

from .onnx_activations import InputRounding
from .onnx_check import corrected_biases
from .onnx_simplify import simplify
from .onnx_trace import Traced, trace
from .onnx_weights import store_bias
from .protocol import ExportRequest


def marked_graph(request: ExportRequest, opset: int) -> tuple[Traced, InputRounding]:
    """The float graph, and the markers where inputs are to be rounded.

    Args:
        request: model, configuration and example.
        opset: ONNX operator set.

    Raises:
        UnsupportedModel: ``torch.onnx.export`` refuses the model, or drops a corrected bias.
    """
    traced = trace(request, opset)
    simplify(traced.model)
    rounding = InputRounding(traced.model.graph, request)
    rounding.drop_implied_bounds()
    for name, bias in corrected_biases(request).items():
        store_bias(traced.model.graph, name, bias)
    return traced, rounding


def rounded_graph(request: ExportRequest, opset: int) -> Traced:
    """The graph with rounded inputs and float weights, for runtimes that get their weights another way.

    Args:
        request: model, configuration and example.
        opset: ONNX operator set.

    Raises:
        UnsupportedModel: see ``marked_graph``.
    """
    import onnx_ir.passes.common as passes

    traced, rounding = marked_graph(request, opset)
    rounding.apply()
    passes.RemoveUnusedNodesPass()(traced.model)
    passes.RemoveUnusedOpsetsPass()(traced.model)
    return traced
