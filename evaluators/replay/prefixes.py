"""Runs many configurations on one batch, each from the point where it first differs from those before it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor

from ...formats import activation_name, weight_name
from ..quantized_model import Changes, QuantizedModel
from .plan import Costs, affordable_cuts, wanted_cuts
from .program import Program, Rounding, slots_in

#: What a configuration changes at one operation; comparable, and equal where nothing differs.
Signature = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Decision:
    """An operation at which configurations may differ.

    Attributes:
        position: in the program.
        parameters: names of the parameters that it reads.
        module: the module whose input it rounds; empty if none.
    """

    position: int
    parameters: tuple[str, ...]
    module: str


@dataclass(frozen=True)
class Output:
    """What one configuration gave.

    Attributes:
        index: of the configuration, in the order given.
        value: the model's output.
        seconds: what it took; a shared beginning counts for the configuration that ran first.
    """

    index: int
    value: Any
    seconds: float


@dataclass
class _Kept:
    """Values at a position."""

    position: int
    values: dict[int, Any]
    bytes: int


def decisions(program: Program) -> list[Decision]:
    """The operations of a program that read a parameter or round an input."""
    found = []
    for position, operation in enumerate(program.operations):
        read = slots_in([operation.args, operation.kwargs])
        parameters = tuple(sorted(program.parameters[slot] for slot in read if slot in program.parameters))
        if parameters or operation.rounds:
            found.append(Decision(position, parameters, operation.rounds))
    return found


class PrefixRunner:
    """Runs a program for many configurations.

    Args:
        program: of the model.
        quantized: gives weights and quantizers.
        budget: bytes that kept values may take.

    Attributes:
        operations_run: how many operations were run so far.
    """

    def __init__(self, program: Program, quantized: QuantizedModel, budget: int) -> None:
        self.program = program
        self.quantized = quantized
        self.budget = budget
        self.operations_run = 0
        self._decisions = decisions(program)
        names = {id(each): name for name, each in quantized.model.named_parameters()}  # tied ones: their first name
        self._first = {name: names[id(quantized.model.get_parameter(name))] for name in program.parameters.values()}

    def signature(self, changes: Changes) -> Signature:
        """What a configuration changes at each decision."""
        named = {name: weight_name(target) for name, (_, target) in changes.weights.items()}
        named |= {name: "|".join(shift) for name, shift in changes.biases.items()}
        found = []
        for decision in self._decisions:
            parts = [named.get(self._first[name], "") for name in decision.parameters]
            if decision.module:
                target = changes.rounding.get(decision.module)
                parts.append("" if target is None else activation_name(target))
            found.append(tuple(parts))
        return tuple(found)

    def outputs(
        self, inputs: Sequence[Tensor], changes: Sequence[Changes], signatures: Sequence[Signature]
    ) -> Iterator[Output]:
        """Run all configurations on one batch.

        Args:
            inputs: tensors of the batch.
            changes: of each configuration.
            signatures: likewise.

        Yields:
            One output for each, in sorted order.
        """
        order = sorted(range(len(changes)), key=signatures.__getitem__)
        shared = [self._agree(signatures[one], signatures[other]) for one, other in pairwise(order)]
        costs = Costs.of(self.program)
        kept: list[_Kept] = []
        for place, index in enumerate(order):
            started = time.perf_counter()
            while kept and place and kept[-1].position > shared[place - 1]:
                kept.pop()
            begin = kept[-1].position if kept else 0
            budget = self.budget - sum(each.bytes for each in kept)
            cuts = affordable_cuts(wanted_cuts(shared[place:], begin), costs, begin, budget)
            value = self._run(inputs, changes[index], begin, kept, cuts)
            yield Output(index, value, time.perf_counter() - started)
            del value

    def _agree(self, one: Signature, other: Signature) -> int:
        """Up to which position two configurations compute the same."""
        pairs = zip(self._decisions, one, other, strict=True)
        differing = (decision.position for decision, first, second in pairs if first != second)
        return next(differing, len(self.program.operations))

    def _run(
        self, inputs: Sequence[Tensor], changes: Changes, begin: int, kept: list[_Kept], cuts: Sequence[int]
    ) -> Any:
        program = self.program
        values = program.start(inputs, lambda name: self._parameter(name, changes), begin)
        if kept:
            for slot, value in kept[-1].values.items():
                values[slot] = value
        rounding = Rounding(rules(self.quantized, changes))
        for stop in sorted({*cuts, len(program.operations)}):
            program.run(values, begin, stop, rounding)
            self.operations_run += stop - begin
            if stop in cuts:
                alive = {slot: values[slot] for slot in program.live[stop]}
                kept.append(_Kept(stop, alive, program.bytes[stop]))
            begin = stop
        return program.result(values)

    def _parameter(self, name: str, changes: Changes) -> Tensor:
        """A parameter of the model under a configuration.

        It asks for gradients if the model's own does: torch multiplies with either on different paths, which differ in
        the last bit.
        """
        first, parameter = self._first[name], self.quantized.model.get_parameter(name)
        if first in changes.weights:
            value = self.quantized.weight(*changes.weights[first])
        elif first in changes.biases:
            value = self.quantized.bias(first, changes.biases[first])
        else:
            return parameter
        return value.detach().requires_grad_(parameter.requires_grad)


def rules(quantized: QuantizedModel, changes: Changes) -> dict[str, tuple[Any, Any]]:
    """How a configuration rounds the input of each module: the content of the rule, and the quantizer."""
    return {module: quantized.rule(module, target) for module, target in changes.rounding.items()}
