"""From the graph of one module of an exported program to the torch layer that it came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

_ATEN = torch.ops.aten


def as_layer(module: nn.Module) -> nn.Module | None:
    """The layer that a module of an unflattened program is, with its parameters; ``None`` if it is none.

    Its graph must be one call of ATen's linear, convolution or embedding, of the module's input (the only one) and the
    module's own weight and bias, and nothing else.
    """
    graph = getattr(module, "graph", None)
    if not isinstance(graph, fx.Graph) or any(True for _ in module.children()):
        return None
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    calls = [node for node in graph.nodes if node.op == "call_function"]
    result = next(node for node in reversed(graph.nodes) if node.op == "output").args[0]
    if isinstance(result, (tuple, list)) and len(result) == 1:
        result = result[0]
    if len(inputs) != 1 or len(calls) != 1 or result is not calls[0]:
        return None
    build = _BUILDERS.get(calls[0].target)
    if build is None:
        return None
    names = {node: str(node.target) for node in graph.nodes if node.op == "get_attr"}
    if not set(names.values()) <= {"weight", "bias"}:
        return None
    found = {
        each.name: given for each, given in zip(calls[0].target._schema.arguments, calls[0].args, strict=False)
    } | dict(calls[0].kwargs)
    layer = build(module, found, inputs[0], names)
    return None if layer is None else layer.train(module.training)


_Arguments = dict[str, Any]
_Names = dict[fx.Node, str]


def _weights(module: nn.Module, found: _Arguments, names: _Names) -> tuple[nn.Parameter, nn.Parameter | None] | None:
    """Weight and bias, where they are the module's own parameters."""
    bias = found.get("bias")
    if names.get(found["weight"]) != "weight" or (bias is not None and names.get(bias) != "bias"):
        return None
    weight, offset = module.weight, None if bias is None else module.bias
    if not isinstance(weight, nn.Parameter) or not (offset is None or isinstance(offset, nn.Parameter)):
        return None
    return weight, offset


def _filled(layer: nn.Module, weight: nn.Parameter, bias: nn.Parameter | None) -> nn.Module:
    """The layer with these very parameters, so that shared ones stay shared."""
    layer.weight = weight
    layer.register_parameter("bias", bias)
    return layer


def _linear(module: nn.Module, found: _Arguments, source: fx.Node, names: _Names) -> nn.Module | None:
    own = _weights(module, found, names)
    if own is None or found["input"] is not source:
        return None
    outputs, inputs = own[0].shape
    return _filled(nn.Linear(inputs, outputs, bias=own[1] is not None, device="meta"), *own)


def _embedding(module: nn.Module, found: _Arguments, source: fx.Node, names: _Names) -> nn.Module | None:
    rescaled = found.get("scale_grad_by_freq", False) or found.get("sparse", False)
    if names.get(found["weight"]) != "weight" or found["indices"] is not source or rescaled:
        return None
    if not isinstance(module.weight, nn.Parameter):
        return None
    rows, width = module.weight.shape
    padding = found.get("padding_idx", -1)
    layer = nn.Embedding(rows, width, padding_idx=None if padding < 0 else padding, device="meta")
    layer.weight = module.weight
    return layer


def _convolution(kind: Any, transposed: bool, dimensions: int) -> Callable[..., nn.Module | None]:
    def build(module: nn.Module, found: _Arguments, source: fx.Node, names: _Names) -> nn.Module | None:
        own = _weights(module, found, names)
        if own is None or found["input"] is not source:
            return None
        weight, bias = own
        groups = found.get("groups", 1)
        first, second = int(weight.shape[0]), int(weight.shape[1]) * groups
        options = {key: _each(found.get(key, default), dimensions) for key, default in _DEFAULTS.items()}
        if transposed:
            options["output_padding"] = _each(found.get("output_padding", 0), dimensions)
        inputs, outputs = (first, second) if transposed else (second, first)
        kernel = tuple(weight.shape[2:])
        layer = kind(inputs, outputs, kernel, groups=groups, bias=bias is not None, device="meta", **options)
        return _filled(layer, weight, bias)

    return build


_DEFAULTS = {"stride": 1, "padding": 0, "dilation": 1}


def _each(given: Any, dimensions: int) -> Any:
    """One value a dimension, as torch's layers keep it; ``same`` and ``valid`` are texts."""
    if isinstance(given, str):
        return given
    values = tuple(given) if isinstance(given, (list, tuple)) else (given,)
    return values if len(values) == dimensions else values * dimensions


_BUILDERS: dict[Any, Callable[..., nn.Module | None]] = {
    _ATEN.linear.default: _linear,
    _ATEN.embedding.default: _embedding,
    _ATEN.conv1d.default: _convolution(nn.Conv1d, False, 1),
    _ATEN.conv2d.default: _convolution(nn.Conv2d, False, 2),
    _ATEN.conv3d.default: _convolution(nn.Conv3d, False, 3),
    _ATEN.conv1d.padding: _convolution(nn.Conv1d, False, 1),
    _ATEN.conv2d.padding: _convolution(nn.Conv2d, False, 2),
    _ATEN.conv3d.padding: _convolution(nn.Conv3d, False, 3),
    _ATEN.conv_transpose1d.default: _convolution(nn.ConvTranspose1d, True, 1),
    _ATEN.conv_transpose2d.input: _convolution(nn.ConvTranspose2d, True, 2),
    _ATEN.conv_transpose3d.input: _convolution(nn.ConvTranspose3d, True, 3),
}
