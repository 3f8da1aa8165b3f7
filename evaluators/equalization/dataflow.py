"""Which operation reads which tensor: recorded from one forward pass.

Every call of a torch function is one step, seen by a ``TorchFunctionMode``, together with the module that it runs in.
Nothing is traced symbolically, so that every model that runs can be recorded; as with ``torch.export``, what is seen
holds for the branch that the example takes.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

from ...task import Batch
from ..float_run import first_tensor, run_float

#: They read shapes and types, not numbers.
_QUERIES = frozenset({"__get__", "size", "dim", "numel", "stride", "is_contiguous", "is_floating_point", "__len__"})


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor that a step reads or makes.

    Attributes:
        value: number of the value; a tensor that is changed in place has a new one afterwards.
        shape: of the tensor.
        parameter: its name in the model, if it is a parameter or buffer.
    """

    value: int
    shape: tuple[int, ...]
    parameter: str = ""


@dataclass(frozen=True)
class Step:
    """One call of a torch function.

    Attributes:
        function: its name, such as ``"conv2d"``.
        module: path of the innermost module that it runs in.
        args: its arguments, with an ``Operand`` for every tensor.
        kwargs: likewise.
        outputs: the tensors that it returned.
    """

    function: str
    module: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Operand, ...]

    @property
    def operands(self) -> list[Operand]:
        """All tensors that it reads."""
        return [leaf for leaf in _pytree.tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Operand)]

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument, given by position or by name."""
        return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)


@dataclass
class Dataflow:
    """The steps of one forward pass.

    Attributes:
        steps: in order.
        readers: value -> the steps that read it.
        producer: value -> the step that made it.
        uses: name of a parameter or buffer -> the steps that read it.
        entering: module path -> the value of the first tensor argument of each call.
        returned: the values that the model returns.
    """

    steps: list[Step] = field(default_factory=list)
    readers: dict[int, list[Step]] = field(default_factory=lambda: defaultdict(list))
    producer: dict[int, Step] = field(default_factory=dict)
    uses: dict[str, list[Step]] = field(default_factory=lambda: defaultdict(list))
    entering: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    returned: set[int] = field(default_factory=set)

    def only_reader(self, value: int) -> Step | None:
        """The one step that reads a value; ``None`` if several do, or none, or the model returns it."""
        readers = self.readers.get(value, [])
        return readers[0] if len(readers) == 1 and value not in self.returned else None


def record(model: nn.Module, batch: Batch) -> Dataflow:
    """Run the model once, without gradients, and record every step.

    Args:
        model: in evaluation mode.
        batch: the example.

    Raises:
        UnsupportedModel: the model does not accept the batch.
    """
    recorder = _Recorder(model)
    with ExitStack() as stack:
        for path, module in model.named_modules():
            enter = module.register_forward_pre_hook(recorder.entry(path), with_kwargs=True)
            leave = module.register_forward_hook(recorder.exit, always_call=True)
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        stack.enter_context(torch.no_grad())
        stack.enter_context(recorder)
        output = run_float(model, batch, "calibration")
    found = recorder.found
    found.returned = {recorder.operand(leaf).value for leaf in _pytree.tree_leaves(output) if isinstance(leaf, Tensor)}
    return found


class _Recorder(TorchFunctionMode):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.found = Dataflow()
        self._names = {id(tensor): name for name, tensor in (*model.named_buffers(), *model.named_parameters())}
        self._values: dict[int, tuple[weakref.ref[Tensor], int]] = {}  # by id, checked against the living tensor
        self._count = 0
        self._path: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        read_args, read_kwargs = _pytree.tree_map(self._described, (tuple(args), kwargs))
        output = func(*args, **kwargs)
        made = [leaf for leaf in _pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
        name = getattr(func, "__name__", "")
        if name in _QUERIES and not made:
            return output
        outputs = tuple(self._new(tensor) for tensor in made)
        step = Step(name, self._path[-1] if self._path else "", read_args, read_kwargs, outputs)
        self.found.steps.append(step)
        for operand in outputs:
            self.found.producer[operand.value] = step
        for operand in step.operands:
            self.found.readers[operand.value].append(step)
            if operand.parameter:
                self.found.uses[operand.parameter].append(step)
        return output

    def entry(self, path: str) -> Callable[..., None]:
        """A pre-hook that notes what enters a module."""

        def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._path.append(path)
            tensor = first_tensor(args, kwargs)
            if tensor is not None:
                self.found.entering[path].append(self.operand(tensor).value)

        return note

    def exit(self, *_: Any) -> None:
        """A hook that notes that a module is left."""
        self._path.pop()

    def operand(self, tensor: Tensor) -> Operand:
        """The tensor as a value."""
        reference, value = self._values.get(id(tensor), (None, -1))
        if reference is None or reference() is not tensor:
            return self._new(tensor)
        return Operand(value, tuple(tensor.shape), self._names.get(id(tensor), ""))

    def _described(self, leaf: Any) -> Any:
        return self.operand(leaf) if isinstance(leaf, Tensor) else leaf

    def _new(self, tensor: Tensor) -> Operand:
        self._count += 1
        self._values[id(tensor)] = (weakref.ref(tensor), self._count)
        return Operand(self._count, tuple(tensor.shape), self._names.get(id(tensor), ""))
