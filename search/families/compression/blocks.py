"""Blocks that a network can do without: those whose output can be replaced by their input.

A block is offered if it is one of several modules of a class in an ``nn.Sequential`` or ``nn.ModuleList``, or if it is
residual (a path from its input to its output passes an addition and nothing but normalization and activation); if in
every call its output has the shape and type of its first input; and if the network runs without it. Blocks inside
blocks are offered too (the attention of a transformer layer), where the outer one stays.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ....evaluators.float_run import run_float
from ....task import Batch
from .running import fault, replaced
from .scope import Scope

_CONTAINERS = (nn.Sequential, nn.ModuleList)
#: Autograd nodes between a block's input and its output that keep the identity path of a residual block.
_TRANSPARENT = ("Add", "Relu", "Hardtanh", "Clamp", "Norm", "Dropout", "Gelu", "Silu", "Clone")


class Skip(nn.Module):
    """Returns its input in the form in which the block that it stands for returned its output.

    Args:
        keyword: name of the argument that is passed on; ``None`` is the first positional one.
        length: 0 if the block returned a tensor; else the length of the tuple that it returned, whose first item was
            the output. The other items are ``None``.
    """

    def __init__(self, keyword: str | None = None, length: int = 0) -> None:
        super().__init__()
        self.keyword = keyword
        self.length = length

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The input."""
        value = kwargs[self.keyword] if self.keyword is not None else args[0]
        return (value, *[None] * (self.length - 1)) if self.length else value

    def extra_repr(self) -> str:
        """The arguments."""
        return f"keyword={self.keyword!r}, length={self.length}"


@dataclass(frozen=True)
class Block:
    """A block that can be skipped.

    Attributes:
        path: of the module.
        outer: path of the innermost other such block that holds it; empty for none.
        keyword: see ``Skip``.
        length: see ``Skip``.
        alone: called with one positional argument, so that ``nn.Identity`` can stand for it.
    """

    path: str
    outer: str
    keyword: str | None
    length: int
    alone: bool

    @property
    def stand_in(self) -> nn.Module:
        """What takes the place of the block: ``nn.Identity`` where that is enough."""
        simple = self.alone and self.keyword is None and not self.length
        return nn.Identity() if simple else Skip(self.keyword, self.length)


@dataclass
class Call:
    """What all calls of a module had in common.

    Attributes:
        same: the output has the shape and type of the first input.
        residual: a path leads past the layers.
        keyword: name of the first tensor argument; ``None`` for a positional one.
        length: of the tuple that is returned, 0 for a tensor.
        alone: one positional argument and no other.
    """

    same: bool
    residual: bool
    keyword: str | None
    length: int
    alone: bool


def skippable_blocks(
    model: nn.Module, example: Batch, expected: Sequence[Tensor], scope: Scope, left_out: dict[str, str]
) -> list[Block]:
    """Find the blocks that a network can do without.

    Args:
        model: as before afterwards.
        example: inputs.
        expected: outputs of the model on them.
        scope: which blocks may be skipped.
        left_out: takes the reasons why modules that looked like blocks are none, by name of the dimension.

    Returns:
        The blocks, outer ones before those inside them.
    """
    repeated = _repeated(model)
    seen = calls(model, example)
    found: list[Block] = []
    for path, module in list(model.named_modules()):
        call = seen.get(path)
        holds = any(other != path and other.startswith(f"{path}.") for other in repeated)
        if call is None or not scope.block(path) or (holds and isinstance(module, _CONTAINERS)):
            continue
        if path not in repeated and (holds or not call.residual):
            continue
        outer = max((each.path for each in found if path.startswith(f"{each.path}.")), key=len, default="")
        block = Block(path, outer, call.keyword, call.length, call.alone)
        if not call.same:
            left_out[f"{path}.skip"] = "its output has not the shape of its input"
            continue
        with replaced(model, path, block.stand_in):
            why = fault(model, example, expected)
        if why:
            left_out[f"{path}.skip"] = f"the model does not run without it: {why}"
        else:
            found.append(block)
    return found


def _repeated(model: nn.Module) -> set[str]:
    """Paths of modules with parts and weights that share a container with another one of their class."""
    found = set()
    for path, container in model.named_modules():
        if isinstance(container, _CONTAINERS):
            kinds = Counter(type(child) for child in container.children())
            for name, child in container.named_children():
                composite = next(child.children(), None) is not None and next(child.parameters(), None) is not None
                if composite and kinds[type(child)] > 1:
                    found.add(f"{path}.{name}" if path else name)
    return found


def calls(model: nn.Module, example: Batch) -> dict[str, Call]:
    """One forward pass with gradients: what each module with parts and weights was given and returned."""
    trial = copy.deepcopy(model).requires_grad_(False)
    for parameter in trial.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    found: dict[str, Call] = {}
    with ExitStack() as stack, torch.enable_grad():
        for path, module in trial.named_modules():
            if path and next(module.children(), None) is not None and next(module.parameters(), None) is not None:
                handle = module.register_forward_hook(_watch(path, found), with_kwargs=True)
                stack.callback(handle.remove)
        run_float(trial, _with_gradients(example), "example")
    return found


def _with_gradients(example: Batch) -> Batch:
    def own(tensor: Tensor) -> Tensor:
        return tensor.detach().clone().requires_grad_(True) if tensor.is_floating_point() else tensor

    if isinstance(example.inputs, dict):
        return Batch({name: own(tensor) for name, tensor in example.inputs.items()})
    return Batch(tuple(own(tensor) for tensor in example.inputs))


def _watch(path: str, found: dict[str, Call]) -> Any:
    def watch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        named: list[tuple[str | None, Any]] = [(None, value) for value in args[:1]] or [*kwargs.items()]
        keyword, value = next(((key, each) for key, each in named if isinstance(each, Tensor)), (None, None))
        length = len(output) if isinstance(output, tuple) else 0
        first = output[0] if length else output
        same = (
            isinstance(value, Tensor)
            and isinstance(first, Tensor)
            and (value.shape, value.dtype) == (first.shape, first.dtype)
        )
        residual = same and _residual(value, first)
        call = Call(same, residual, keyword, length, len(args) == 1 and not kwargs)
        before = found.setdefault(path, call)
        if (before.keyword, before.length) != (call.keyword, call.length):
            call.same = False
        before.same &= call.same
        before.residual &= call.residual
        before.alone &= call.alone

    return watch


def _residual(value: Any, output: Any) -> bool:
    """Whether a path leads from the output back to the value through an addition and no layer with a matrix."""
    stack = [(output.grad_fn, False)]
    seen = set()
    while stack:
        node, added = stack.pop()
        if node is None or (node, added) in seen:
            continue
        seen.add((node, added))
        leaf = getattr(node, "variable", None) is value  # the input itself, where no layer made it
        if added and (leaf or node is value.grad_fn):
            return True
        if any(part in node.name() for part in _TRANSPARENT):
            stack += [(parent, added or "AddBackward" in node.name()) for parent, _ in node.next_functions]
    return False
