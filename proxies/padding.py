"""Batches without positions that are padding: what a mask leaves out need not be computed.

Samples of like length come together, and each batch is cut to its longest. It is done only where it is seen to change
nothing: the input has an ``attention_mask`` of ones and zeros that ends in zeros, and the float model gives outputs of
the same shape that differ by rounding errors. A model that returns something for every position is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..evaluators.float_run import run_float
from ..evaluators.metrics import output_tensor
from ..task import Batch

if TYPE_CHECKING:
    from torch import Tensor, nn

MASK = "attention_mask"
_LEAST = 8  # samples of a batch: with fewer, small operations cost more than padding
_LENGTHS = 4  # lengths that one batch is split into; every shape is captured by itself
_ROUNDING = 1e-5  # relative to the largest output


def without_padding(model: nn.Module, batches: Sequence[Batch], lengths: int = _LENGTHS) -> list[Batch]:
    """The same samples, without positions that are padding for all samples of a batch.

    Args:
        model: the float model.
        batches: as they are.
        lengths: how many lengths one batch is split into at most; 1 only cuts it to its longest sample.

    Returns:
        The batches, some of them split by the length of their samples; those that cannot be cut, as they are.
    """
    return [piece for batch in batches for piece in _pieces(model, batch, lengths)]


def counted(batch: Batch) -> Tensor | None:
    """How many positions of every sample lie before its trailing padding [samples].

    Args:
        batch: its inputs by name.

    Returns:
        ``None`` where there is no mask [samples, positions] of ones and zeros.
    """
    mask = batch.inputs.get(MASK) if isinstance(batch.inputs, dict) else None
    if mask is None or mask.ndim != 2 or not bool(((mask == 0) | (mask == 1)).all()):
        return None
    positions = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return (positions * (mask != 0)).amax(1)


def _pieces(model: nn.Module, batch: Batch, most: int) -> list[Batch]:
    found = counted(batch)
    if found is None:
        return [batch]
    count = max(1, min(most, len(batch) // _LEAST))
    order = found.argsort(stable=True) if count > 1 else torch.arange(len(batch), device=found.device)
    pieces = [_cut(batch, index, max(1, int(found[index].max()))) for index in order.tensor_split(count)]
    if sum(_positions(each) for each in pieces) == _positions(batch):
        return [batch]  # no padding
    with torch.no_grad():
        wanted = output_tensor(run_float(model, batch, "calibration"))[order.to(_device(model, batch))]
        given = [output_tensor(run_float(model, each, "calibration")) for each in pieces]
    if any(each.shape[1:] != wanted.shape[1:] for each in given):
        return [batch]
    difference = (torch.cat(given) - wanted).abs().max()
    return pieces if bool(difference <= _ROUNDING * wanted.abs().max()) else [batch]


def _cut(batch: Batch, index: Tensor, length: int) -> Batch:
    """Some samples, up to a position."""
    assert isinstance(batch.inputs, dict)  # it has a mask by name
    whole = batch.inputs[MASK].shape[1]
    inputs = {
        name: tensor[index, :length] if tensor.ndim > 1 and tensor.shape[1] == whole else tensor[index]
        for name, tensor in batch.inputs.items()
    }
    return Batch(inputs, None if batch.targets is None else batch.targets[index])


def _positions(batch: Batch) -> int:
    assert isinstance(batch.inputs, dict)
    return batch.inputs[MASK].numel()


def _device(model: nn.Module, batch: Batch) -> torch.device:
    first = next(model.parameters(), None)
    return next(iter(batch.tensors.values())).device if first is None else first.device
