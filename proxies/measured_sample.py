"""A bounded random sample of the calibration data, drawn with a seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..errors import InvalidInput
from ..task import Batch

if TYPE_CHECKING:
    from torch import Tensor


#: Input elements that are worth running together: below, the calls of many small operations cost most of the time.
_ELEMENTS = 1 << 14


def seeded_sample(batches: Sequence[Batch], samples: int, size: int | None, seed: int, proxy: str) -> list[Batch]:
    """Samples drawn without replacement, in batches of at most ``size``.

    Args:
        batches: what is drawn from.
        samples: how many; all if there are no more.
        size: samples of one batch; samples of unequal shapes never share one. ``None``: as many as in the first batch
            of the data, or more if inputs are so small that more fit into 16,384 elements.
        seed: of the draw; without effect where all are taken.
        proxy: name, for messages.

    Returns:
        The batches, their samples in the order of the data.

    Raises:
        InvalidInput: ``samples`` or ``size`` is below 1.
    """
    if size is None:
        first = batches[0]
        each = sum(tensor.numel() for tensor in first.tensors.values()) / len(first)
        size = max(len(first), int(_ELEMENTS / max(each, 1)))
    if samples < 1 or size < 1:
        raise InvalidInput(f"{proxy} needs samples and batch of at least 1, got {samples}, {size}")
    places = [(batch, row) for batch in batches for row in range(len(batch))]
    drawn = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))[:samples]
    groups: dict[str, list[tuple[Batch, int]]] = {}
    for index in sorted(drawn.tolist()):
        groups.setdefault(_kind(places[index][0]), []).append(places[index])
    return [
        _joined(members[start : start + size]) for members in groups.values() for start in range(0, len(members), size)
    ]


def _kind(batch: Batch) -> str:
    """Equal for batches whose samples may be joined."""
    tensors = [*batch.tensors.items(), *([] if batch.targets is None else [("targets", batch.targets)])]
    return repr([(name, tuple(each.shape[1:]), each.dtype, each.device) for name, each in tensors])


def _joined(members: Sequence[tuple[Batch, int]]) -> Batch:
    def rows(tensors: Sequence[Tensor]) -> Tensor:
        picked = [tensor[row : row + 1] for tensor, (_, row) in zip(tensors, members, strict=True)]
        return torch.cat(picked)

    first = members[0][0]
    inputs = {name: rows([batch.tensors[name] for batch, _ in members]) for name in first.tensors}
    targets = [batch.targets for batch, _ in members if batch.targets is not None]
    labels = rows(targets) if targets else None
    return Batch(inputs, labels) if isinstance(first.inputs, dict) else Batch(tuple(inputs.values()), labels)
