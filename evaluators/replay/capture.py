"""Capture of a model's forward pass with ``torch.export``, the inputs of its sites marked.

The graph is taken as it is traced (no decompositions), so that each operation is the one that the model calls in eager
mode, and its result is the same to the bit. Every module whose input a configuration may round passes it through the
operator ``bitfront::site_input`` while it is traced; that node is where a quantizer is put later.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node
from torch.utils import _pytree as pytree

from ...errors import BitfrontError
from ...task import Batch
from ...tracing import without_attention_fast_path
from ..equalization import HOOKS
from ..float_run import first_tensor, in_eval
from ..quantized_model import rounding_hook
from .liveness import analysed
from .program import Operation, Program, Slot


class NotReplayable(BitfrontError):
    """A model that cannot be captured, with the reason; it is evaluated by running the module itself."""


@torch.library.custom_op("bitfront::site_input", mutates_args=())
def site_input(value: Tensor, module: int) -> Tensor:
    """Marks the input of a module in a captured graph; computes nothing."""
    return value.clone()


@site_input.register_fake
def _(value: Tensor, module: int) -> Tensor:
    return torch.empty_like(value)


def capture(model: nn.Module, batch: Batch, modules: Sequence[str]) -> Program:
    """The forward pass of a model on inputs shaped like a batch.

    Args:
        model: captured in evaluation mode; it is as before afterwards.
        batch: an example; only shapes, strides and types matter.
        modules: paths of the modules whose inputs may be rounded.

    Raises:
        NotReplayable: control flow that depends on values, hooks of the user, results that are written into inputs or
            buffers, or anything else that a flat list of operations does not reproduce.
    """
    hooked = [
        name
        for name, module in model.named_modules()
        if {*module._forward_hooks.values(), *module._forward_pre_hooks.values()} - HOOKS
    ]
    if hooked:
        raise NotReplayable(f"module {hooked[0] or '(the model)'} has forward hooks, which may do anything")
    args, kwargs = ((), dict(batch.inputs)) if isinstance(batch.inputs, dict) else (batch.inputs, {})
    unreachable: set[str] = set()
    try:
        with _marked(model, modules, unreachable), in_eval(model), torch.no_grad(), without_attention_fast_path():
            exported = torch.export.export(model, args, kwargs, strict=False)
    except Exception as cause:
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        raise NotReplayable(f"torch.export cannot capture the model: {lines[0]}") from cause
    return _program(model, exported, batch, modules, frozenset(unreachable))


def _mark(module: int, value: Tensor) -> Tensor:
    marked: Tensor = site_input(value, module)
    return marked


@contextmanager
def _marked(model: nn.Module, modules: Sequence[str], unreachable: set[str]) -> Iterator[None]:
    with ExitStack() as stack:
        for index, name in enumerate(modules):
            mark = rounding_hook(partial(_mark, index))

            def hook(module: nn.Module, args: Any, kwargs: Any, mark: Any = mark, name: str = name) -> Any:
                value = first_tensor(args, kwargs)
                if value is None or not value.is_floating_point():
                    unreachable.add(name)
                    return None
                return mark(module, args, kwargs)

            module = model.get_submodule(name)
            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


def _program(
    model: nn.Module, exported: ExportedProgram, batch: Batch, modules: Sequence[str], unreachable: frozenset[str]
) -> Program:
    nodes = list(exported.graph.nodes)
    slot_of = {node: index for index, node in enumerate(nodes)}
    placeholders = {node.name: slot_of[node] for node in nodes if node.op == "placeholder"}
    parameters, constants, inputs = _sources(model, exported, placeholders, batch)
    operations = [_operation(node, slot_of, modules) for node in nodes if node.op not in ("placeholder", "output")]
    rest = {node.op for node in nodes} - {"placeholder", "call_function", "output"}
    if rest:
        raise NotReplayable(f"the captured graph holds nodes of kind {', '.join(sorted(rest))}")
    leaves = [_template(each, slot_of) for each in next(node for node in nodes if node.op == "output").args[0]]
    spec = exported.call_spec.out_spec
    if spec is None:
        raise NotReplayable("the captured graph has no output")
    sources = {*parameters, *constants, *inputs}
    written, found = analysed(nodes, operations, slot_of, sources, leaves)
    if written:
        raise NotReplayable(f"the model writes into its {written}")
    return Program(
        found.operations,
        inputs,
        parameters,
        constants,
        leaves,
        lambda values: pytree.tree_unflatten(values, spec),
        found.live,
        found.bytes,
        found.cuts,
        unreachable,
        len(nodes),
    )


def _sources(
    model: nn.Module, exported: ExportedProgram, placeholders: Mapping[str, int], batch: Batch
) -> tuple[dict[int, str], dict[int, Any], list[int]]:
    """Slots of parameters (with their names), of constants (with their values), and of the batch in its order."""
    parameters: dict[int, str] = {}
    constants: dict[int, Any] = {}
    user: list[int] = []
    for each in exported.graph_signature.input_specs:
        slot = placeholders[each.arg.name]
        if each.kind == InputKind.PARAMETER:
            parameters[slot] = str(each.target)
        elif each.kind == InputKind.BUFFER:
            constants[slot] = model.get_buffer(str(each.target))
        elif each.kind == InputKind.CONSTANT_TENSOR:
            constants[slot] = exported.constants[str(each.target)]
        elif each.kind == InputKind.USER_INPUT:
            user.append(slot)
        else:
            raise NotReplayable(f"the captured graph has an input of kind {each.kind.name}")
    if any(each.kind != OutputKind.USER_OUTPUT for each in exported.graph_signature.output_specs):
        raise NotReplayable("the model changes buffers or inputs while it runs")
    if not isinstance(batch.inputs, dict):
        return parameters, constants, user
    spec = exported.call_spec.in_spec
    order = list(spec.children()[1].context) if spec is not None else []
    if sorted(order) != sorted(batch.inputs):
        raise NotReplayable("torch.export renamed the inputs")
    return parameters, constants, [user[order.index(name)] for name in batch.inputs]


def _operation(node: Node, slot_of: Mapping[Node, int], modules: Sequence[str]) -> Operation:
    args = tuple(_template(each, slot_of) for each in node.args)
    if node.target is torch.ops.bitfront.site_input.default:
        return Operation(site_input, args, {}, slot_of[node], rounds=modules[int(str(node.args[1]))])
    if not isinstance(node.target, torch._ops.OpOverload) and node.target is not operator.getitem:
        raise NotReplayable(f"the captured graph calls {node.target}, which is no plain operation")
    kwargs = {key: _template(each, slot_of) for key, each in node.kwargs.items()}
    return Operation(node.target, args, kwargs, slot_of[node])


def _template(value: Any, slot_of: Mapping[Node, int]) -> Any:
    """A nested argument with slots in place of nodes."""
    if isinstance(value, Node):
        return Slot(slot_of[value])
    if isinstance(value, (tuple, list)):
        return (
            type(value)(_template(each, slot_of) for each in value)
            if type(value) in (tuple, list)
            else [_template(each, slot_of) for each in value]
        )
    if isinstance(value, dict):
        return {key: _template(each, slot_of) for key, each in value.items()}
    if isinstance(value, slice):
        return slice(*(_template(each, slot_of) for each in (value.start, value.stop, value.step)))
    return value
