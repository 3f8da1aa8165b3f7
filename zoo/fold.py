"""Folding BatchNorm into the convolution before it, so that a model's sites are what a runtime executes."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

M = TypeVar("M", bound=nn.Module)

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold_batch_norm(model: M) -> M:
    r"""Fold every BatchNorm whose only input is a convolution that nothing else reads.

    With running mean $\mu$, variance $\sigma^2$ and affine $\gamma, \beta$ of output channel $c$,

    $$w'_c = \frac{\gamma_c}{\sqrt{\sigma_c^2 + \epsilon}} w_c, \qquad
      b'_c = \beta_c + \frac{\gamma_c}{\sqrt{\sigma_c^2 + \epsilon}} (b_c - \mu_c),$$

    which is the same affine map of the input as convolution then BatchNorm in eval mode. The pairs are found in the
    symbolic trace, so the order in which modules were registered does not matter.

    Args:
        model: Traceable by `torch.fx`, in eval mode.

    Returns:
        A deep copy of the same class in which each folded BatchNorm is an `nn.Identity`.

    Raises:
        ValueError: The model is in training mode, in which BatchNorm is not an affine map.
    """
    if model.training:
        raise ValueError("BatchNorm folds only in eval mode: call model.eval() first")
    folded = copy.deepcopy(model)
    graph = fx.symbolic_trace(folded).graph
    calls: dict[object, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls[node.target] = calls.get(node.target, 0) + 1
    for node in graph.nodes:
        if node.op != "call_module" or not isinstance(folded.get_submodule(node.target), _NORMS):
            continue
        before = node.args[0]
        if before.op != "call_module" or len(before.users) > 1 or calls[before.target] > 1 or calls[node.target] > 1:
            continue
        convolution, norm = folded.get_submodule(before.target), folded.get_submodule(node.target)
        if isinstance(convolution, _CONVOLUTIONS) and isinstance(norm, _NORMS):
            with torch.no_grad():
                folded.set_submodule(before.target, fuse_conv_bn_eval(convolution, norm))
            folded.set_submodule(node.target, nn.Identity())
    return folded
