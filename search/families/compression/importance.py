r"""How much each channel of a group matters: from the weights, from what flows through, or from the loss.

- ``magnitude``, ``l1``: the mean over all layers of the group of :math:`\sum |w|^p` over the weights of the channel,
  p = 2 or 1 (Li et al. 2017, arXiv:1608.08710; over groups: Fang et al. 2023, arXiv:2301.12900, section 3.3).
- ``taylor``: :math:`\frac1B \sum_b (\sum_l |\sum_{w \in c, l} g_b w|)^2`, with the first-order change of the loss of
  batch b when the weights of channel c in layer l go (Molchanov et al. 2019, arXiv:1906.10771, eq. 8).
- ``activation``: the share of the outputs' energy that the channel carries into its readers l,
  :math:`\sum_{l} \|W^l_{:,c}\|^2 E[x_c^2] / \sum_j \|W^l_{:,j}\|^2 E[x_j^2]`; needs no labels (the structured form of
  Wanda: Sun et al. 2023, arXiv:2306.11695).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ....errors import InvalidInput, NonFiniteOutput
from ....evaluators.float_run import on_device, run_float
from ....task import Batch
from .low_rank import matrix
from .moments import Moments
from .pruning import CONSUMERS, Member
from .settings import Importance


def weight_scores(kind: Importance, groups: Sequence[Any]) -> list[Tensor]:
    """Scores from the weights alone.

    Args:
        kind: ``"magnitude"`` or ``"l1"``.
        groups: of the dependency graph.

    Returns:
        One score for each channel of each group.
    """
    from torch_pruning.pruner.importance import GroupMagnitudeImportance

    scorer = GroupMagnitudeImportance(p=2 if kind == "magnitude" else 1)
    return [scorer(group).double() for group in groups]


def taylor_scores(
    model: nn.Module,
    traced: nn.Module,
    groups: Sequence[Any],
    batches: Sequence[Batch],
    loss: Callable[[Any, Any], Tensor],
) -> list[Tensor]:
    """Scores from the gradient of a loss.

    Args:
        model: the original; it is not changed.
        traced: the copy in which the groups were found; its parameters get the gradients.
        groups: of its dependency graph.
        batches: with targets.
        loss: ``loss(outputs, targets) -> scalar``.

    Returns:
        One score for each channel of each group.

    Raises:
        InvalidInput: a batch has no targets.
        NonFiniteOutput: the loss is NaN or infinite.
    """
    from torch_pruning.pruner.importance import GroupTaylorImportance

    scorer = GroupTaylorImportance(normalizer=None, group_reduction="sum", multivariable=True)
    own = copy.deepcopy(model)
    for parameter in own.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    found = [torch.zeros(len(group[0].idxs), dtype=torch.float64) for group in groups]
    for position, batch in enumerate(batches):
        if batch.targets is None:
            raise InvalidInput(f"importance='taylor' needs targets, and calibration batch {position} has none")
        own.zero_grad()
        with torch.enable_grad():
            value = loss(run_float(own, batch, "calibration"), on_device(batch, own).targets)
            if not bool(torch.isfinite(value)):
                raise NonFiniteOutput(f"the loss of calibration batch {position} is {float(value)}")
            value.backward()  # type: ignore[no-untyped-call]  # torch
        for name, parameter in traced.named_parameters():
            parameter.grad = own.get_parameter(name).grad
        for score, group in zip(found, groups, strict=True):
            score += scorer(group).double().square() / len(batches)
    return found


def activation_scores(
    model: nn.Module, channels: int, members: Sequence[Member], moments: Mapping[str, Moments]
) -> Tensor:
    """Scores of one group from what its channels carry.

    Args:
        model: has the layers.
        channels: of the group.
        members: of the group; readers without moments do not count.
        moments: of the inputs of layers.

    Returns:
        Float64 [channels].
    """
    score = torch.zeros(channels, dtype=torch.float64)
    for member in members:
        if member.operation in CONSUMERS and member.path in moments:
            layer = model.get_submodule(member.path)
            energy = matrix(layer).double().square().sum(0) * moments[member.path].second.diagonal()
            per_input = energy.view(layer.get_parameter("weight").shape[1], -1).sum(1)
            part = per_input[torch.tensor(member.index)] / per_input.sum().clamp(min=1e-30)
            score.index_add_(0, torch.tensor(member.channel), part)
    return score
