"""Records the tensors of a forward pass, at the level of aten operations.

Views are resolved to the memory that they look into. A pointwise operation (or an inference batch norm) on a tensor
that nothing else reads is counted as fused into the operation that makes that tensor; so the output of a convolution,
its normalization, its activation and a residual addition behind it are one tensor. Tensors that nothing reads (the
indices of a max-pooling) are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .activations import Activation, ActivationGraph, Read

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Pointwise in effect, without the tag that torch gives to pointwise operations.
_POINTWISE = frozenset({"hardswish", "hardswish_", "masked_fill", "masked_fill_", "where", "native_dropout"})
_NORM = "batch_norm"


@dataclass
class _Value:
    """An activation while it is recorded."""

    made: int
    elements: int
    width: int
    per_sample: bool
    reads: list[Read] = field(default_factory=list)


@dataclass
class _Step:
    """One operation: positions of what it reads in float and of what it writes among the recorded values."""

    name: str
    fusible: bool
    operands: list[int]
    writes: list[int]
    over: frozenset[int]  # operands that it writes into


class ActivationRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch
    """Records while it is entered (``with``); ``graph`` gives the result.

    Args:
        model: its parameters and buffers are no activations.
        inputs: tensors of the batch.
        samples: the batch size.
    """

    def __init__(self, model: nn.Module, inputs: Iterable[Tensor], samples: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch
        self._samples = samples
        self._values: list[_Value] = []
        self._steps: list[_Step] = []
        self._memory: dict[int, tuple[StorageWeakRef, int]] = {}  # storage -> (keeps its identity, value; -1: constant)
        self._calls: list[tuple[str, int]] = []  # modules being run, with the value that enters each
        for constant in [*model.parameters(), *model.buffers()]:
            self._place(constant, -1)
        for tensor in inputs:
            self._place(tensor, self._new(tensor, -1, True, tensor.numel()))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here; the default would import all of torch._dynamo (a second) to say so."""
        return False

    def enter(self, module: str, inputs: Any) -> None:
        """A quantizable module begins; what it reads of its first floating-point input is its input."""
        tensors = [each for each in tree_leaves(inputs) if isinstance(each, torch.Tensor) and each.is_floating_point()]
        self._calls.append((module, self._value(tensors[0]) if tensors else -1))

    def leave(self) -> None:
        """The module that was entered last ends."""
        self._calls.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and record it."""
        output = func(*args, **(kwargs or {}))
        inputs = [each for each in tree_leaves([args, kwargs]) if isinstance(each, torch.Tensor)]
        outputs = [each for each in tree_leaves(output) if isinstance(each, torch.Tensor)]
        written = _written(func, args, kwargs or {})
        known = {_storage(each) for each in inputs}
        fresh = [each for each in outputs if _storage(each) not in known]
        if fresh or written or not outputs:
            self._record(func, inputs, fresh, written)
        return output

    def graph(self, output: Any) -> ActivationGraph:
        """What was recorded, given the model's output."""
        steps = len(self._steps)
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor) and (value := self._value(tensor)) >= 0:
                self._values[value].reads.append(Read(steps, "", tensor.numel()))
        dropped = _fuse(self._values, self._steps)
        kept = [value for index, value in enumerate(self._values) if value.reads and index not in dropped]
        activations = [
            Activation(each.made, each.elements, each.width, each.per_sample, tuple(sorted(each.reads, key=_by_step)))
            for each in sorted(kept, key=lambda each: each.made)
        ]
        return ActivationGraph(tuple(activations), steps, self._samples, tuple(step.name for step in self._steps))

    def _record(self, func: Any, inputs: Sequence[Tensor], fresh: Sequence[Tensor], written: Sequence[Tensor]) -> None:
        position = len(self._steps)
        operands: list[int] = []
        alone = True
        for tensor in inputs:
            value = self._value(tensor)
            if value < 0:
                continue
            module = next((path for path, entering in reversed(self._calls) if entering == value), "")
            alone &= not module
            operands.append(value)
            self._values[value].reads.append(Read(position, module, min(tensor.numel(), self._values[value].elements)))
        grows = any(self._values[value].per_sample for value in operands)
        over = frozenset(value for each in written if (value := self._value(each)) >= 0)
        writes = []
        for tensor in [*fresh, *written]:
            writes.append(self._new(tensor, position, grows))
            self._place(tensor, writes[-1])
        name = func._schema.name.split("::")[-1]
        pointwise = torch.Tag.pointwise in func.tags or name in _POINTWISE or _NORM in name
        self._steps.append(_Step(name, pointwise and alone, operands, writes, over))

    def _new(self, tensor: Tensor, made: int, grows: bool, elements: int | None = None) -> int:
        if elements is None:
            elements = tensor.untyped_storage().nbytes() // max(1, tensor.element_size())
        self._values.append(_Value(made, elements, tensor.element_size(), grows))
        return len(self._values) - 1

    def _place(self, tensor: Tensor, value: int) -> None:
        identity = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]  # torch
        self._memory[_storage(tensor)] = (identity, value)

    def _value(self, tensor: Tensor) -> int:
        """The value that lies in a tensor's memory; memory that no operation was seen to write is a constant."""
        key = _storage(tensor)
        if key not in self._memory:
            self._place(tensor, -1)
        return self._memory[key][1]


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _by_step(read: Read) -> tuple[int, str]:
    return read.step, read.module


def _written(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors among the arguments that an operation writes into."""
    found: list[Tensor] = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            found += [each for each in tree_leaves(value) if isinstance(each, torch.Tensor)]
    return found


def _fuse(values: list[_Value], steps: Sequence[_Step]) -> set[int]:
    """Merge what pointwise operations read into what they write; returns the values that are gone.

    The operand that was made last is merged if only this operation reads it and it is as large as the result: all other
    operands are there when it is made. An operand that is overwritten without being merged shares its memory with the
    result, so it ends one step earlier.
    """
    gone: set[int] = set()
    for position, step in enumerate(steps):
        results = [index for index in step.writes if values[index].reads]
        target = values[results[0]] if len(results) == 1 else None
        last = max(step.operands, key=lambda index: values[index].made, default=-1)
        fits = target is not None and last >= 0 and values[last].made >= 0
        if step.fusible and fits and target is not None and _only_read_at(values[last], position):
            source = values[last]
            if source.elements == target.elements:
                target.made = source.made
                gone.add(last)
                for index in set(step.operands) - {last}:
                    values[index].reads = list(_moved(values[index].reads, position, source.made))
                continue
        for index in step.over:
            values[index].reads = list(_moved(values[index].reads, position, max(position - 1, values[index].made)))
    return gone


def _only_read_at(value: _Value, position: int) -> bool:
    return all(read.step == position and not read.module for read in value.reads)


def _moved(reads: Iterable[Read], position: int, to: int) -> Iterator[Read]:
    for read in reads:
        yield replace(read, step=to) if read.step == position else read
