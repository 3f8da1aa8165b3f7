"""What was found, as dimensions: a skipped block has no width and no rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ....architecture import Dimension, Value
from .blocks import Block
from .pruning import ChannelGroup
from .settings import Settings


def dimensions(
    blocks: Sequence[Block],
    groups: Sequence[ChannelGroup],
    layers: Mapping[str, tuple[float, ...]],
    settings: Settings,
) -> Iterator[Dimension]:
    """Skips, then widths, then ranks, each in the order of the model; the last value changes nothing.

    Args:
        blocks: outer ones before those inside them.
        groups: channels that can be cut; a width exists where the block that holds all its layers does.
        layers: path -> shares of the rank.
        settings: has the shares of the width.
    """

    def inside(paths: Sequence[str]) -> tuple[tuple[str, tuple[Value, ...]], ...]:
        holding = [block.path for block in blocks if all(path.startswith(f"{block.path}.") for path in paths)]
        return ((f"{max(holding, key=len)}.skip", (False,)),) if holding else ()

    for block in blocks:
        yield Dimension(f"{block.path}.skip", "skip", (True, False), inside([block.path]))
    for group in groups:
        by_count: dict[int, float] = {}
        for share in sorted(settings.width, reverse=True):
            by_count.setdefault(group.kept(share, settings.round_to), share)
        shares = tuple(sorted(by_count.values()))
        yield Dimension(f"{group.path}.width", "width", shares, inside([member.path for member in group.members]))
    for path, ranks in layers.items():
        yield Dimension(f"{path}.rank", "rank", ranks, inside([path]))
