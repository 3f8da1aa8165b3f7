"""A forward pass as a flat list of operations, which can be stopped at any of them and taken up again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a value lies."""

    index: int


@dataclass(frozen=True)
class Operation:
    """One call.

    Attributes:
        call: the function.
        args: its arguments; a ``Slot`` stands for the value in it.
        kwargs: its keyword arguments.
        output: the slot of the result.
        frees: slots that no later operation reads.
        rounds: the module whose input this is, where a configuration may round it; empty for other operations.
        shares: whether a later module reads the same tensor, and may be given the same rounded value.
    """

    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: int
    frees: tuple[int, ...] = ()
    rounds: str = ""
    shares: bool = False

    def __call__(self, values: list[Any]) -> Any:
        """The result, given the values of all slots."""
        args = [values[each.index] if type(each) is Slot else filled(each, values) for each in self.args]
        if self.kwargs:
            return self.call(*args, **{key: filled(each, values) for key, each in self.kwargs.items()})
        return self.call(*args)


@dataclass
class Program:
    """What ``capture`` makes of a model for inputs of one shape.

    Attributes:
        operations: in order of execution.
        inputs: slots of the batch, in the order of its tensors.
        parameters: slot -> parameter name.
        constants: slot -> buffer or constant.
        output: the structure of the model's output, with slots.
        rebuild: makes the model's output from the list of its leaves.
        live: for every position from 0 to the end, the slots that later operations read (inputs, parameters and
            constants left out).
        bytes: bytes of those.
        cuts: whether the values at a position may be kept: nothing later writes into them.
        unreachable: modules that get no floating-point input, which cannot be rounded.
        seconds: shortest time seen of every operation.
    """

    operations: list[Operation]
    inputs: list[int]
    parameters: dict[int, str]
    constants: dict[int, Any]
    output: list[Any]
    rebuild: Callable[[list[Any]], Any]
    live: list[tuple[int, ...]]
    bytes: list[int]
    cuts: list[bool]
    unreachable: frozenset[str]
    slots: int
    seconds: list[float] = field(default_factory=list)

    def start(self, inputs: Sequence[Tensor], parameter: Callable[[str], Tensor], position: int = 0) -> list[Any]:
        """The values with which a run begins.

        Args:
            inputs: tensors of the batch.
            parameter: gives a parameter by name.
            position: where the run will begin; parameters that are only read before it are not asked for.
        """
        values: list[Any] = [None] * self.slots
        for slot, tensor in zip(self.inputs, inputs, strict=True):
            values[slot] = tensor
        for slot, constant in self.constants.items():
            values[slot] = constant
        for slot in self._read_after(position):
            values[slot] = parameter(self.parameters[slot])
        return values

    def run(self, values: list[Any], start: int, stop: int, rounding: Rounding) -> None:
        """Run the operations ``start`` to ``stop``; ``values`` is changed."""
        for operation in self.operations[start:stop]:
            if operation.rounds:
                values[operation.output] = rounding(operation, values)
            else:
                values[operation.output] = operation(values)
            for slot in operation.frees:
                values[slot] = None

    def timed_run(self, values: list[Any], rounding: Rounding) -> None:
        """Run everything and note how long each operation took."""
        seconds = []
        for position in range(len(self.operations)):
            started = time.perf_counter()
            self.run(values, position, position + 1, rounding)
            seconds.append(time.perf_counter() - started)
        self.seconds = list(map(min, self.seconds, seconds)) if self.seconds else seconds

    def result(self, values: list[Any]) -> Any:
        """The output of the model after a run to the end."""
        return self.rebuild([filled(each, values) for each in self.output])

    def _read_after(self, position: int) -> list[int]:
        return [slot for slot, last in self._last_reads.items() if last >= position]

    def __post_init__(self) -> None:
        self._last_reads = dict.fromkeys(self.parameters, -1)
        for position, operation in enumerate(self.operations):
            for slot in slots_in([operation.args, operation.kwargs]):
                if slot in self._last_reads:
                    self._last_reads[slot] = position
        for slot in slots_in(self.output):
            if slot in self._last_reads:
                self._last_reads[slot] = len(self.operations)


class Rounding:
    """Rounds the inputs of modules; the same tensor under the same rule once.

    Args:
        rules: module path -> (content of the rule, the quantizer); other modules' inputs stay as they are.
    """

    def __init__(self, rules: Mapping[str, tuple[Any, Callable[[Tensor], Tensor]]] | None = None) -> None:
        self._rules = rules or {}
        self._last: tuple[Any, Tensor | None, Tensor | None] = (None, None, None)

    def __call__(self, operation: Operation, values: list[Any]) -> Tensor:
        """The input of the module, rounded."""
        value: Tensor = values[operation.args[0].index]
        if operation.rounds not in self._rules:
            return value
        content, quantizer = self._rules[operation.rounds]
        seen, source, rounded = self._last
        if rounded is None or source is not value or seen != content:
            rounded = quantizer(value)
        self._last = (content, value, rounded) if operation.shares else (None, None, None)
        return rounded


def filled(template: Any, values: list[Any]) -> Any:
    """A nested argument with the values in place of the slots."""
    kind = type(template)
    if kind is Slot:
        return values[template.index]
    if kind is tuple or kind is list:
        return kind(filled(each, values) for each in template)
    if kind is dict:
        return {key: filled(each, values) for key, each in template.items()}
    if kind is slice:
        return slice(filled(template.start, values), filled(template.stop, values), filled(template.step, values))
    return template


def slots_in(template: Any) -> set[int]:
    """The slots in a nested argument."""
    if isinstance(template, Slot):
        return {template.index}
    if isinstance(template, slice):
        template = [template.start, template.stop, template.step]
    if isinstance(template, dict):
        template = list(template.values())
    if isinstance(template, (tuple, list)):
        return set().union(*(slots_in(each) for each in template))
    return set()
