r"""Zen-score: how much a network with Gaussian weights magnifies a small change of its input.

.. math::
    s = \log E_{x, \epsilon} \lVert f(x) - f(x + \alpha \epsilon) \rVert_F
        + \sum_k \log \sqrt{\tfrac1{m_k} \sum_j \sigma_{kj}^2}

with x, epsilon standard normal, f the features before the global average pooling, and :math:`\sigma_{kj}^2` the
variance (over the batch, plus the normalization's epsilon) of channel j that enters batch normalization k of m_k
channels: the normalizations divide the magnitude away, the sum puts it back. One that nothing varying enters does not
count. Lin et al. 2021, Zen-NAS, arXiv:2102.01063, algorithm 1. All weights are drawn from N(0, 1), biases are 0,
normalizations neutral. The paper also takes residual links out, which needs knowledge of the network; here, as in
NAS-Bench-Suite-Zero, they stay.

f is what enters the last adaptive average pooling to one pixel, else what enters the last linear layer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from ...errors import NonFiniteOutput, UnsupportedModel
from ...evaluators.float_run import on_device
from .passes import as_initialized, finite

if TYPE_CHECKING:
    from ...task import Batch
    from .proxy import Loss

_POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


class Zen:
    """Sensitivity to the input under Gaussian weights; two forward passes, no data and no labels.

    Args:
        step: alpha, the size of the change.
    """

    name = "zen"
    summary = "how much a small change of the input is magnified under Gaussian weights; two forward passes, no data"
    labels = False
    gradients = 0
    source = "Lin et al. 2021 (Zen-NAS), arXiv:2102.01063, algorithm 1"

    def __init__(self, step: float = 0.01) -> None:
        self.step = step

    def score(self, module: nn.Module, batch: Batch, loss: Loss | None, seed: int) -> float:
        """See the module docstring; the loss is not used, of the batch only the shape. The seed draws all.

        Raises:
            UnsupportedModel: the network has no linear layer or pooling, or its inputs are whole numbers.
            NonFiniteOutput: the features overflow.
        """
        generator = torch.Generator().manual_seed(seed)
        state = _gaussian(module, generator)
        shapes = on_device(batch, module)
        if not all(each.is_floating_point() for each in shapes.tensors.values()):
            raise UnsupportedModel("proxy zen changes the inputs a little, and these are whole numbers; choose synflow")
        inputs = {name: _drawn(each, generator) for name, each in shapes.tensors.items()}
        moved = {name: each + self.step * _drawn(each, generator) for name, each in inputs.items()}
        keyword = isinstance(batch.inputs, dict)
        plain, scale = _features(module, state, inputs, keyword)
        other, _ = _features(module, state, moved, keyword)
        distance = float((plain - other).flatten(1).double().norm(dim=1).mean())
        if math.isnan(distance):
            raise NonFiniteOutput(f"proxy {self.name}: the features overflow under Gaussian weights; choose synflow")
        return finite((math.log(distance) if distance else -math.inf) + scale, self.name)


def _drawn(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator).to(like)


def _gaussian(module: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Every parameter as the proxy wants it, by name."""
    neutral = {id(each.weight) for each in module.modules() if isinstance(each, (_BatchNorm, *_NORMS))}
    state: dict[str, Tensor] = {}
    for name, each in module.named_parameters():
        if id(each) in neutral:
            state[name] = torch.ones_like(each)
        elif each.ndim >= 2:
            state[name] = _drawn(each, generator)
        else:
            state[name] = torch.zeros_like(each) if name.rpartition(".")[2].endswith("bias") else each.detach()
    return state


def _features(
    module: nn.Module, state: dict[str, Tensor], inputs: dict[str, Tensor], keyword: bool
) -> tuple[Tensor, float]:
    """The features, and the sum of the logarithms of what the normalizations divide by."""
    pooled: list[Tensor] = []
    linear: list[Tensor] = []
    logarithms: list[float] = []

    def divide(norm: nn.Module, args: tuple[Any, ...]) -> None:
        value, epsilon = args[0].transpose(0, 1).flatten(1), float(norm.eps)  # type: ignore[arg-type]
        variance = float(value.double().var(dim=1, correction=0).mean())
        if variance > 0:
            logarithms.append(0.5 * math.log(variance + epsilon))

    handles = []
    for each in module.modules():
        if isinstance(each, _BatchNorm):
            handles.append(each.register_forward_pre_hook(divide))
        elif isinstance(each, _POOLS) and each.output_size in (1, (1,), (1, 1), (1, 1, 1)):
            handles.append(each.register_forward_pre_hook(lambda _, args: pooled.append(args[0])))
        elif isinstance(each, nn.Linear):
            handles.append(each.register_forward_pre_hook(lambda _, args: linear.append(args[0])))
    args, kwargs = ((), inputs) if keyword else (tuple(inputs.values()), {})
    try:
        with as_initialized(module), torch.no_grad():
            functional_call(module, state, args, kwargs)
    finally:
        for handle in handles:
            handle.remove()
    if not pooled and not linear:
        raise UnsupportedModel(
            "proxy zen looks before the last pooling or linear layer, and there is none; choose nwot"
        )
    return (pooled or linear)[-1], sum(logarithms)
