"""Exact simplifications of the traced graph, so that the runtime recognizes what it can fuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .onnx_trace import DOMAIN

if TYPE_CHECKING:
    import onnx_ir as ir


def simplify(model: ir.Model) -> None:
    """Fold small constants, drop identities, and let convolutions do their own zero padding.

    Parameters and buffers stay as they are.
    """
    import onnx_ir.passes.common as passes
    from onnxscript import optimizer

    kept = set(model.graph.initializers)

    def should_fold(node: ir.Node) -> bool | None:
        return False if any(value is not None and value.name in kept for value in node.inputs) else None

    optimizer.fold_constants(model, should_fold=should_fold)
    passes.IdentityEliminationPass()(model)
    for node in list(model.graph):
        if node.op_type == "Pad" and node.domain == "":
            _absorb(node)
    passes.RemoveUnusedNodesPass()(model)


def constant(value: ir.Value | None) -> list[float] | None:
    """The numbers of a constant, flattened; ``None`` if it is none."""
    import onnx_ir as ir

    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else [float(number) for number in tensor.numpy().reshape(-1)]


def pads_automatically(conv: ir.Node) -> bool:
    """Whether the amount of padding follows from the sizes."""
    return "auto_pad" in conv.attributes and conv.attributes["auto_pad"].as_string() != "NOTSET"


def _absorb(pad: ir.Node) -> None:
    """Move zero padding into the convolutions that read it. Zero is a code of every rounding, so it may lie between."""
    import onnx_ir as ir

    amounts = constant(pad.inputs[1])
    mode = pad.attributes["mode"].as_string() if "mode" in pad.attributes else "constant"
    filler = pad.inputs[2] if len(pad.inputs) > 2 else None
    explicit_axes = len(pad.inputs) > 3 and pad.inputs[3] is not None
    if amounts is None or mode != "constant" or explicit_axes or (filler is not None and constant(filler) != [0.0]):
        return
    half = len(amounts) // 2
    spatial = [int(number) for number in (*amounts[2:half], *amounts[half + 2 :])]
    if half < 3 or any((*amounts[:2], *amounts[half : half + 2])) or min(spatial) < 0:
        return
    readers = _convolutions(pad.outputs[0])
    if not readers or any(pads_automatically(conv) for conv in readers):
        return
    for conv in readers:
        own = conv.attributes["pads"].as_ints() if "pads" in conv.attributes else [0] * len(spatial)
        conv.attributes["pads"] = ir.AttrInt64s("pads", [a + b for a, b in zip(own, spatial, strict=True)])
    ir.convenience.replace_all_uses_with(pad.outputs[0], pad.inputs[0])  # type: ignore[arg-type]


def _convolutions(value: ir.Value) -> list[ir.Node]:
    """The convolutions that read a value, directly or rounded; empty if anything else does."""
    if value.is_graph_output():
        return []
    found: list[ir.Node] = []
    for node, index in value.uses():
        if node.op_type == "Conv" and index == 0:
            found.append(node)
        elif node.domain == DOMAIN and (behind := _convolutions(node.outputs[0])):
            found += behind
        else:
            return []
    return found
