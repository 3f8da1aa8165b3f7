"""Which values are alive at each position of a captured graph, which share memory, and where writing goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from .program import Operation, slots_in

#: Operations that return their own argument in evaluation mode, which their schema does not say.
_PASSING = frozenset({"dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "site_input"})


@dataclass(frozen=True)
class Liveness:
    """What ``analysed`` finds; see the attributes of ``Program`` of the same names."""

    operations: list[Operation]
    live: list[tuple[int, ...]]
    bytes: list[int]
    cuts: list[bool]


def analysed(
    nodes: Sequence[Node],
    operations: Sequence[Operation],
    slot_of: Mapping[Node, int],
    sources: set[int],
    leaves: list[Any],
) -> tuple[str, Liveness]:
    """Lifetimes of all values.

    Args:
        nodes: of the graph, with the fake tensors that they were traced with.
        operations: the calls among them.
        slot_of: the slot of each node.
        sources: slots of inputs, parameters and constants.
        leaves: of the output.

    Returns:
        What the graph writes into that is not its own (empty if nothing), and the lifetimes.
    """
    kept = slots_in(leaves)
    last = {slot: len(operations) for slot in kept}
    for position, operation in enumerate(operations):
        for slot in slots_in([operation.args, operation.kwargs]):
            last[slot] = max(last.get(slot, -1), position)
    memory, storage_bytes = _memory(nodes, slot_of)
    calls = [node for node in nodes if node.op == "call_function"]
    writes = [_written(node, slot_of, memory) for node in calls]
    foreign = set().union(*writes) & {memory[slot] for slot in sources}
    ends: dict[int, int] = {}  # memory -> last position that writes into it
    for position, targets in enumerate(writes):
        ends.update(dict.fromkeys(targets, position))
    live, sizes, cuts = [], [], []
    made: list[int] = []
    for position in range(len(operations) + 1):
        alive = tuple(slot for slot in made if last.get(slot, -1) >= position)
        places = {memory[slot] for slot in alive}
        live.append(alive)
        sizes.append(sum(storage_bytes[place] for place in places))
        cuts.append(all(ends.get(place, -1) < position for place in places))
        made = list(alive)
        if position < len(operations):
            made.append(operations[position].output)
    return (
        "inputs, parameters or buffers" if foreign else "",
        Liveness(_with_frees(operations, last, sources, memory, ends), live, sizes, cuts),
    )


def _with_frees(
    operations: Sequence[Operation], last: Mapping[int, int], sources: set[int], memory: list[int], ends: dict[int, int]
) -> list[Operation]:
    found = []
    readers = {operation.args[0].index: position for position, operation in enumerate(operations) if operation.rounds}
    for position, operation in enumerate(operations):
        shares = bool(operation.rounds) and readers[operation.args[0].index] > position
        read = slots_in([operation.args, operation.kwargs]) | {operation.output}
        frees = tuple(sorted(slot for slot in read - sources if last.get(slot, -1) <= position))
        found.append(replace(operation, frees=frees, shares=shares and memory[operation.output] not in ends))
    return found


def _memory(nodes: Sequence[Node], slot_of: Mapping[Node, int]) -> tuple[list[int], dict[int, int]]:
    """The memory that each slot lies in (an arbitrary number, equal for values that may share it), and its bytes.

    The traced fake tensors tell which results are views. Lists of tensors join the memory of all their elements.
    """
    parent: dict[int, int] = {}
    storage_bytes: dict[int, int] = {}

    def root(place: int) -> int:
        while parent.setdefault(place, place) != place:
            place = parent[place]
        return place

    def join(one: int, other: int) -> None:
        first, second = root(one), root(other)
        if first != second:
            parent[second] = first
            storage_bytes[first] = storage_bytes.get(first, 0) + storage_bytes.pop(second, 0)

    for node in nodes:
        own = -1 - slot_of[node]  # storages have positive addresses
        for tensor in _tensors(node.meta.get("val")):
            storage = tensor.untyped_storage()
            address = int(storage._cdata)
            if address not in parent:
                parent[address], storage_bytes[address] = address, int(storage.nbytes())
            join(address, own)
        if _name(node) in _PASSING and isinstance(node.args[0], Node):
            join(-1 - slot_of[node.args[0]], own)
    places = [root(-1 - slot) for slot in range(len(nodes))]
    return places, {place: storage_bytes.get(place, 0) for place in places}


def _written(node: Node, slot_of: Mapping[Node, int], memory: list[int]) -> set[int]:
    """The memory that an operation writes into."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return set()
    found = set()
    for position, argument in enumerate(node.target._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
        for each in value if isinstance(value, (tuple, list)) else [value]:
            if isinstance(each, Node):
                found.add(memory[slot_of[each]])
    return found


def _name(node: Node) -> str:
    return node.target._schema.name.split("::")[1] if isinstance(node.target, torch._ops.OpOverload) else ""


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [tensor for each in value for tensor in _tensors(each)]
    return []
