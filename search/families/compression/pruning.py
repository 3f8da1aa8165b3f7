"""Channels that must go together, and taking them out of a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .settings import rounded

#: Operations on layers that read the pruned channels with a matrix of their own: everything else passes them on.
CONSUMERS = ("prune_conv_in_channels", "prune_linear_in_channels")


@dataclass(frozen=True)
class Member:
    """One layer, or parameter of its own, that a group of channels runs through.

    Attributes:
        path: of the module or parameter.
        operation: the function of ``torch_pruning.pruner.function`` that takes channels out of it.
        index: positions of the group's channels in this layer [n].
        channel: the channel of the group that each position belongs to [n].
        axis: of a parameter or of a normalization over several axes.
    """

    path: str
    operation: str
    index: tuple[int, ...]
    channel: tuple[int, ...]
    axis: int


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of one width: all layers that must be cut at the same place.

    Attributes:
        path: the first layer that makes these channels.
        channels: how many.
        unit: neighbouring channels that go together: 1, or the size of a head.
        members: the layers.
        order: units from the most to the least important one.
        heads: modules with the attribute that counts heads, to be changed along.
    """

    path: str
    channels: int
    unit: int
    members: tuple[Member, ...]
    order: tuple[int, ...]
    heads: tuple[tuple[str, str], ...] = ()

    def kept(self, share: float, step: int) -> int:
        """Units that stay at a share; channel counts are multiples of ``step``, heads are whole."""
        units = self.channels // self.unit
        return rounded(share, units, step if self.unit == 1 else 1)

    def removed(self, kept: int) -> frozenset[int]:
        """The channels that go when ``kept`` units stay."""
        return frozenset(
            channel for unit in self.order[kept:] for channel in range(unit * self.unit, (unit + 1) * self.unit)
        )


@dataclass(frozen=True)
class Removal:
    """Positions that leave a module by one operation."""

    path: str
    operation: str
    axis: int
    index: tuple[int, ...]


def removals(groups: Iterable[tuple[ChannelGroup, int]]) -> list[Removal]:
    """What leaves each module when ``kept`` units of each group stay: all at once, in the original numbering."""
    found: dict[tuple[str, str, int], set[int]] = {}
    for group, kept in groups:
        gone = group.removed(kept)
        for member in group.members:
            positions = {place for place, channel in zip(member.index, member.channel, strict=True) if channel in gone}
            if positions:
                found.setdefault((member.path, member.operation, member.axis), set()).update(positions)
    return [Removal(path, operation, axis, tuple(sorted(index))) for (path, operation, axis), index in found.items()]


def take_out(model: nn.Module, gone: Iterable[Removal], heads: Mapping[tuple[str, str], int]) -> None:
    """Take channels out of a model in place.

    Args:
        model: whose modules have their original widths.
        gone: what leaves them.
        heads: (module, attribute) -> heads that stay.
    """
    from torch_pruning.pruner import function

    with torch.no_grad():
        for each in gone:
            operation: Any = getattr(function, each.operation)
            parent, _, name = each.path.rpartition(".")
            target = getattr(model.get_submodule(parent), name)
            operation.__self__.pruning_dim = each.axis
            changed = operation(target, list(each.index))
            if isinstance(target, nn.Parameter):
                setattr(model.get_submodule(parent), name, changed)
    for (path, attribute), count in heads.items():
        setattr(model.get_submodule(path), attribute, count)


def heads_kept(groups: Iterable[tuple[ChannelGroup, int]]) -> dict[tuple[str, str], int]:
    """(module, attribute) -> heads that stay."""
    return {place: kept for group, kept in groups for place in group.heads}
