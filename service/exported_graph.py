"""The modules of an exported program as plain ones: a list of steps instead of generated code.

Unlike the modules that ``torch.export.unflatten`` gives they can be copied and sent to other processes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from ..errors import InvalidInput
from .exported_layers import as_layer


@dataclass(frozen=True)
class Value:
    """Refers to what a step gave, or to an input.

    Attributes:
        name: of the step.
    """

    name: str


@dataclass(frozen=True)
class Step:
    """One call in the graph of a module.

    Attributes:
        name: of its result.
        kind: ``operator``, ``module`` (a child) or ``tensor`` (a parameter or buffer).
        target: name of the operator, the child or the tensor.
        args: by position, with ``Value`` for results.
        kwargs: by name, likewise.
        last: names of the results that nothing reads after this step.
    """

    name: str
    kind: str
    target: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    last: tuple[str, ...]


class Steps(nn.Module):
    """A module that runs steps.

    Args:
        inputs: names of its inputs.
        steps: in order.
        result: with ``Value`` for results.
    """

    def __init__(self, inputs: tuple[str, ...], steps: tuple[Step, ...], result: Any) -> None:
        super().__init__()
        self.inputs, self.steps, self.result = inputs, steps, result

    def forward(self, *args: Any) -> Any:
        """Run all steps."""
        known = dict(zip(self.inputs, args, strict=True))

        def resolved(given: Any) -> Any:
            return pytree.tree_map_only(Value, lambda value: known[value.name], given)

        for step in self.steps:
            if step.kind == "tensor":
                known[step.name] = _tensor(self, step.target)
            else:
                call = self.get_submodule(step.target) if step.kind == "module" else _operator_named(step.target)
                known[step.name] = call(*resolved(step.args), **resolved(step.kwargs))
            for name in step.last:
                del known[name]
        return resolved(self.result)


class ExportedModel(Steps):
    """An exported program: the root of its modules; takes inputs by position or by name.

    Args:
        inputs: names of its inputs.
        steps: in order.
        result: with ``Value`` for results, as the program's output is laid out.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program."""
        given = dict(zip(self.inputs, args, strict=False)) | kwargs
        if len(args) + len(kwargs) != len(self.inputs) or set(given) != set(self.inputs):
            raise InvalidInput(
                f"the exported program takes {', '.join(self.inputs)}; it was given {len(args)} inputs by position and "
                f"{', '.join(kwargs) or 'none'} by name"
            )
        return super().forward(*(given[name] for name in self.inputs))


def plain(unflattened: nn.Module, inputs: tuple[str, ...], structure: pytree.TreeSpec) -> ExportedModel:
    """The modules of an unflattened program as plain ones.

    Args:
        unflattened: what ``torch.export.unflatten`` gave.
        inputs: names of the program's inputs, in order.
        structure: of the program's output.
    """
    _, steps, result = _steps(unflattened.graph)  # type: ignore[arg-type]
    flat = list(result) if isinstance(result, tuple | list) else [result]
    model = ExportedModel(inputs, _renamed(unflattened.graph, inputs, steps), pytree.tree_unflatten(flat, structure))  # type: ignore[arg-type]
    _fill(model, unflattened, {})
    return model


def _renamed(graph: fx.Graph, inputs: tuple[str, ...], steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The root's steps with its inputs under the names that callers use."""
    own = [node.name for node in graph.nodes if node.op == "placeholder"]
    names = dict(zip(own, inputs, strict=True))

    def renamed(given: Any) -> Any:
        return pytree.tree_map_only(Value, lambda value: Value(names.get(value.name, value.name)), given)

    return tuple(
        Step(
            step.name,
            step.kind,
            step.target,
            renamed(step.args),
            renamed(step.kwargs),
            tuple(names.get(each, each) for each in step.last),
        )
        for step in steps
    )


def _fill(model: nn.Module, source: nn.Module, made: dict[int, nn.Module]) -> nn.Module:
    """Give a module the parameters, buffers and children of another; a child that comes twice is one."""
    for name, parameter in source.named_parameters(recurse=False):
        model.register_parameter(name, parameter)
    persistent = set(source.state_dict())
    for name, buffer in source.named_buffers(recurse=False):
        model.register_buffer(name, buffer, persistent=name in persistent)
    for name, child in source._modules.items():
        if child is None:
            continue
        if id(child) not in made:
            made[id(child)] = as_layer(child) or _fill(_opened(child), child, made)
        model.add_module(name, made[id(child)])
    return model.train(source.training)


def _opened(module: nn.Module) -> nn.Module:
    graph = getattr(module, "graph", None)
    return Steps(*_steps(graph)) if isinstance(graph, fx.Graph) else nn.Module()


def _steps(graph: fx.Graph) -> tuple[tuple[str, ...], tuple[Step, ...], Any]:
    """Inputs, steps and result of a graph."""
    inputs, steps, result = [], [], None
    last: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        for used in node.all_input_nodes:
            last[used] = node
    gone: dict[fx.Node, list[str]] = {}
    for used, node in last.items():
        gone.setdefault(node, []).append(used.name)
    for node in graph.nodes:
        args, kwargs = _plain(node.args), _plain(node.kwargs)
        if node.op == "placeholder":
            inputs.append(node.name)
        elif node.op == "output":
            result = args[0]
        else:
            kind = {"call_function": "operator", "call_module": "module", "get_attr": "tensor"}[node.op]
            target = _name_of(node.target) if kind == "operator" else str(node.target)
            steps.append(Step(node.name, kind, target, args, kwargs, tuple(gone.get(node, ()))))
    return tuple(inputs), tuple(steps), result


def _plain(given: Any) -> Any:
    """Arguments of a node with ``Value`` for other nodes, and plain lists and dicts, which can be sent on."""
    if isinstance(given, fx.Node):
        return Value(given.name)
    if isinstance(given, dict):
        return {key: _plain(value) for key, value in given.items()}
    if isinstance(given, tuple):
        return tuple(map(_plain, given))
    return [_plain(each) for each in given] if isinstance(given, list) else given


def _name_of(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    module = "operator" if getattr(operator, target.__name__, None) is target else "torch"
    return f"{module}.{target.__name__}"


@cache
def _operator_named(name: str) -> Callable[..., Any]:
    """The function that a step calls: ``aten.NAME.OVERLOAD``, ``operator.NAME`` or ``torch.NAME``."""
    home, _, rest = name.partition(".")
    if home == "aten":
        packet, _, overload = rest.partition(".")
        found: Callable[..., Any] = getattr(getattr(torch.ops.aten, packet), overload)
    else:
        found = getattr(operator if home == "operator" else torch, rest)
    return found


def _tensor(module: nn.Module, path: str) -> torch.Tensor:
    parent, _, leaf = path.rpartition(".")
    found: torch.Tensor = getattr(module.get_submodule(parent), leaf)
    return found
