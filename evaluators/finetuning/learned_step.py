r"""LSQ: integer quantizers whose step size is learnt (Esser et al. 2020, arXiv:1902.08153).

.. math:: \bar v = \lfloor \operatorname{clip}(v / s, -Q_N, Q_P) \rceil, \qquad \hat v = \bar v\, s \qquad (1, 2)

The gradients take the rounding as the identity (straight-through estimator, Bengio et al. 2013, arXiv:1308.3432):

.. math::
    \frac{\partial \hat v}{\partial s} = \begin{cases} -v / s + \lfloor v / s \rceil & -Q_N < v / s < Q_P \\
    -Q_N \text{ or } Q_P & \text{where clipped} \end{cases} \quad (3) \qquad
    \frac{\partial \hat v}{\partial v} = \begin{cases} 1 & -Q_N < v / s < Q_P \\ 0 & \text{where clipped} \end{cases}
    \quad (5)

and that of s is multiplied by :math:`g = 1 / \sqrt{N Q_P}`, N the number of weights (features of a sample) that share
the step. The levels of an asymmetric format are shifted by its zero-point, which stays as calibrated.

What is stored is the logarithm of the step relative to the calibrated one: it stays positive, and one learning rate
fits steps of every size. Under SGD g balances steps against weights as in the paper; Adam divides gradients by their
own magnitude, so there it has no effect.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ...formats import TensorFormat
from ..quantizers import ActivationQuantizer, ChannelQuantizer, Layout, Range, WeightScale, activation_quantizer
from ..quantizers.block_scales import fp16_scale


class _StraightThrough(torch.autograd.Function):
    """The second argument forwards, the gradient to the first argument backwards."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, rounded: Tensor) -> Tensor:
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _GradientScale(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a constant."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    """``rounded``, with the gradient going to ``value`` as if nothing had been rounded."""
    found: Tensor = _StraightThrough.apply(value, rounded)  # type: ignore[no-untyped-call]
    return found


def lsq(value: Tensor, step: Tensor, low: Tensor | float, high: Tensor | float, gradient_scale: float) -> Tensor:
    """Equations 1 to 5.

    Args:
        value: v.
        step: s, broadcast against ``value``.
        low: -Q_N, less the zero-point where there is one.
        high: Q_P, likewise.
        gradient_scale: g.

    Returns:
        The quantized value, of the shape of ``value``.
    """
    step = _GradientScale.apply(step, gradient_scale)  # type: ignore[no-untyped-call]
    ratio = value / step
    clipped = torch.maximum(torch.minimum(ratio, _tensor(high, ratio)), _tensor(low, ratio))
    return straight_through(clipped, clipped.detach().round()) * step


def _tensor(bound: Tensor | float, like: Tensor) -> Tensor:
    return torch.as_tensor(bound, dtype=like.dtype, device=like.device)


class LearnedWeight(nn.Module):
    """LSQ for a weight: as many steps as its format has scales.

    Args:
        weight: the float weight.
        target: an integer format.
        scales: where the steps begin, on any device; the steps lie on that of the weight.
        channel_axis: axis of the output channels.
    """

    begin: Tensor
    zero_point: Tensor | None

    def __init__(self, weight: Tensor, target: TensorFormat, scales: WeightScale, channel_axis: int) -> None:
        super().__init__()
        self.layout = Layout.of(weight, target, channel_axis)
        self.register_buffer("begin", scales.scale)
        self.register_buffer("zero_point", scales.zero_point)
        self.log_ratio = nn.Parameter(torch.zeros_like(scales.scale))
        sharing = weight.numel() / max(1, scales.scale.numel())
        self.gradient_scale = 1 / math.sqrt(max(1.0, sharing * target.levels[1]))
        self.to(weight.device)

    @property
    def step(self) -> Tensor:
        """The steps, rounded (straight-through) to what the format can store."""
        step = self.begin * self.log_ratio.exp()
        if self.layout.target.scale != "fp16":
            return step
        return straight_through(step, fp16_scale(step.detach()))

    def forward(self, weight: Tensor) -> Tensor:
        """The quantized weight, in the type of ``weight``."""
        layout, (low, high) = self.layout, self.layout.target.levels
        shift = 0.0 if self.zero_point is None else layout.expand(self.zero_point)
        step = layout.expand(self.step)
        quantized = lsq(layout.matrix(weight).float(), step, low - shift, high - shift, self.gradient_scale)
        return layout.tensor(quantized).contiguous().to(weight.dtype)

    def scales(self) -> WeightScale:
        """What was learnt."""
        return WeightScale(self.step.detach().clone(), self.zero_point)


class LearnedActivation(nn.Module):
    """LSQ for the tensor that enters a module: one step, or one per feature of its last axis.

    Args:
        target: an integer format with static scales.
        found: the calibrated range, which gives the step to begin with and the zero-point.
        device: where the activation is; by default where the range is.
    """

    begin: Tensor
    zero_point: Tensor

    def __init__(self, target: TensorFormat, found: Range, device: torch.device | None = None) -> None:
        super().__init__()
        self.target = target
        quantizer = activation_quantizer(target, found)
        assert isinstance(quantizer, (ActivationQuantizer, ChannelQuantizer))
        place = found.low.device if device is None else device
        self.register_buffer("begin", torch.as_tensor(quantizer.scale, dtype=torch.float32, device=place))
        self.register_buffer("zero_point", torch.as_tensor(quantizer.zero_point, dtype=torch.float32, device=place))
        self.log_ratio = nn.Parameter(torch.zeros_like(self.begin))

    @property
    def step(self) -> Tensor:
        """One step, or one per feature."""
        return self.begin * self.log_ratio.exp()

    def forward(self, value: Tensor) -> Tensor:
        """The quantized activation, in the type of ``value``."""
        low, high = self.target.levels
        features = value[0].numel() if value.ndim > 1 and len(value) else value.numel()
        gradient_scale = 1 / math.sqrt(max(1, features // max(1, self.begin.numel()) * high))
        quantized = lsq(value.float(), self.step, low - self.zero_point, high - self.zero_point, gradient_scale)
        return quantized.to(value.dtype)

    def range(self) -> Range:
        """The range whose quantizer has the learnt step and the zero-point."""
        step, (low, high) = self.step.detach().clone(), self.target.levels
        if self.target.symmetric:
            return Range(-high * step, high * step)
        return Range((low - self.zero_point) * step, (high - self.zero_point) * step)
