"""The aten operations of a forward pass with what they compute and move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .encoding import kind_of


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    Attributes:
        kind: one of ``encoding.KINDS``.
        macs: multiply-accumulates; 0 for operations that are no products.
        bytes: of all tensors that it reads and writes.
    """

    kind: str
    macs: int
    bytes: int


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch
    """Collects ``operations`` while it is entered (``with``); views are no operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch
        self.operations: list[Operation] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here; the default would import all of torch._dynamo (a second) to say so."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        output = func(*args, **(kwargs or {}))
        inputs = _tensors([args, kwargs])
        outputs = _tensors(output)
        memory = {each.untyped_storage()._cdata for each in inputs}
        writes = func._schema.is_mutable
        if outputs and (writes or any(each.untyped_storage()._cdata not in memory for each in outputs)):
            name = func._schema.name.split("::")[-1]
            kind = kind_of(name, torch.Tag.pointwise in func.tags)
            macs = 0
            if "convolution" in name:
                kind = "convolution" if inputs[1].dim() < 3 or _groups(args) == 1 else "grouped"
                macs = _convolution_macs(args, inputs, outputs[0])
            elif kind == "product":
                macs = outputs[0].numel() * _inner(inputs)
            elif kind == "attention":
                query, key = inputs[0], inputs[1]
                macs = 2 * query.numel() * int(key.shape[-2])
            moved = sum(each.numel() * each.element_size() for each in [*inputs, *outputs])
            self.operations.append(Operation(kind, macs, moved))
        return output


def _tensors(value: Any) -> list[Tensor]:
    return [each for each in tree_leaves(value) if isinstance(each, Tensor)]


def _groups(args: Sequence[Any]) -> int:
    """Groups of ``aten.convolution``: its last argument."""
    return int(args[-1]) if isinstance(args[-1], int) else 1


def _convolution_macs(args: Sequence[Any], inputs: Sequence[Tensor], output: Tensor) -> int:
    """Output elements x weight elements behind one; transposed: input elements x weight elements that one touches."""
    weight = inputs[1]
    transposed = len(args) > 6 and args[6] is True
    side = inputs[0] if transposed else output
    return side.numel() * (weight.numel() // int(weight.shape[0]))


def _inner(inputs: Sequence[Tensor]) -> int:
    """The length that a product sums over: that of the last but one operand's rows."""
    factors = [each for each in inputs if each.dim() >= 1][-2:]
    return int(factors[0].shape[-1]) if factors else math.prod(())
