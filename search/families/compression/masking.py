r"""Whether cutting a group of channels computes what it should: the cut network against the whole one with zeros.

To remove channels :math:`R` from all layers that make or pass them on is to give every reader W of them a matrix whose
columns R are zero,

.. math:: W x = W_K x_K + W_R x_R, \qquad W_R := 0,

in the network of full size; a layer normalization over the channels then counts only those that stay. Both networks are
run on the example. A dependency that the tracing misread (a head cut in half, a channel shuffle) shows as a difference.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ....task import Batch
from .pruning import CONSUMERS, ChannelGroup, heads_kept, removals, take_out
from .running import fault, outputs, replace

_RELATIVE = 1e-3  # of the change that the zeros make
_ABSOLUTE = 1e-5  # of the largest output


class _MaskedLayerNorm(nn.Module):
    """Layer normalization over the channels that stay; the others become zero."""

    def __init__(self, norm: nn.LayerNorm, kept: Tensor) -> None:
        super().__init__()
        self.norm = norm
        self.kept = kept

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (None if each is None else each[self.kept] for each in (self.norm.weight, self.norm.bias))
        y = nn.functional.layer_norm(x[..., self.kept], (len(self.kept),), weight, bias, self.norm.eps)
        return torch.zeros_like(x).index_copy(-1, self.kept, y)


def misread(model: nn.Module, group: ChannelGroup, kept: int, example: Batch, expected: Sequence[Tensor]) -> str:
    """Why a group cannot be cut; empty if the cut network equals the masked one.

    Args:
        model: is not changed.
        group: the channels.
        kept: units that stay in the trial.
        example: inputs.
        expected: outputs of the model on them.
    """
    if not any(member.operation in CONSUMERS for member in group.members):
        return "no layer reads its channels: they are the output"
    cut = copy.deepcopy(model)
    try:
        take_out(cut, removals([(group, kept)]), heads_kept([(group, kept)]))
    except (ValueError, IndexError, RuntimeError, AssertionError, TypeError) as cause:
        return f"the layers cannot be cut: {str(cause).strip().splitlines()[0] if str(cause) else type(cause).__name__}"
    why = fault(cut, example, expected)
    if why:
        return why
    masked = outputs(_masked(model, group, kept), example)
    for found, wanted, before in zip(outputs(cut, example), masked, expected, strict=True):
        if found.is_floating_point():
            allowed = _RELATIVE * float((wanted - before).abs().max()) + _ABSOLUTE * float(before.abs().max())
            if float((found - wanted).abs().max()) > allowed:
                return "the cut network does not compute what the whole one does with these channels at zero"
    return ""


def _masked(model: nn.Module, group: ChannelGroup, kept: int) -> nn.Module:
    masked = copy.deepcopy(model)
    with torch.no_grad():
        for each in removals([(group, kept)]):
            module = masked.get_submodule(each.path) if not each.operation.startswith("prune_parameter") else None
            if isinstance(module, nn.LayerNorm):
                gone = set(each.index)
                stay = [place for place in range(module.normalized_shape[-1]) if place not in gone]
                replace(masked, each.path, _MaskedLayerNorm(module, torch.tensor(stay)))
            elif each.operation in CONSUMERS:
                weight = module.get_parameter("weight") if module is not None else None
                assert weight is not None
                axis = 0 if getattr(module, "transposed", False) else 1
                weight.index_fill_(axis, torch.tensor(each.index), 0.0)
    return masked
