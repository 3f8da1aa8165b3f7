r"""AdaRound: learn for every weight whether it is rounded down or up.

.. math::
    \min_V\; \lVert W x - \tilde W x \rVert^2 + \lambda \sum_{ij} 1 - |2 h(V_{ij}) - 1|^\beta, \qquad
    \tilde W = s\,\big(\lfloor W / s \rfloor + h(V)\big), \qquad
    h(V) = \operatorname{clip}(\sigma(V)(\zeta - \gamma) + \gamma, 0, 1)

with a rectified sigmoid, :math:`\zeta = 1.1`, :math:`\gamma = -0.1`, and :math:`\beta` annealed from high to low, which
drives h to 0 or 1. Nagel et al. 2020, arXiv:2004.10568, eq. 21 to 25, layer by layer, without the activation function.

The expectation over the data is the quadratic form of the second moments, so every step sees all of the data, at the
price of one product of the weight's matrix with the moments, and a few hundred steps do what takes thousands of
stochastic ones. Each channel's error is measured in units of the mean error of rounding one of its weights the other
way, so that one :math:`\lambda` fits every layer. On grids that are not uniform (minifloats, nf4) the two neighbouring
elements take the place of :math:`\lfloor W / s \rfloor` and :math:`\lfloor W / s \rfloor + 1`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...formats import TensorFormat
from ..quantizers import QuantizedWeight, codebook
from .problem import LayerProblem

_ZETA, _GAMMA = 1.1, -0.1


@dataclass(frozen=True, slots=True)
class AdaRound:
    """AdaRound, for every format that has scales.

    Attributes:
        steps: of Adam.
        rate: its learning rate.
        strength: lambda.
        warm: fraction of the steps without the regularizer.
        sharpest: beta at the start of the annealing.
        smoothest: beta at its end.
    """

    steps: int = 400
    rate: float = 0.2
    strength: float = 1.0
    warm: float = 0.2
    sharpest: float = 20.0
    smoothest: float = 2.0

    def __call__(self, problems: Sequence[LayerProblem]) -> list[QuantizedWeight]:
        """Round the weight of a layer in every format.

        Args:
            problems: one a format, all with the same moments.

        Returns:
            The quantized weights. No channel has a larger output error than with rounding to nearest.
        """
        return [problem.quantized(self._elements(problem)) for problem in problems]

    def _elements(self, problem: LayerProblem) -> Tensor:
        ratio = problem.blocks / problem.factor
        below, above = neighbours(ratio, problem.target, problem.zero_point)
        gap = above - below
        step, low = gap * problem.factor, below * problem.factor - problem.blocks
        moment = problem.moment.matrix.diagonal(dim1=1, dim2=2)[:, None]
        unit = (step.square() * moment).mean(2, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        position = torch.where(gap > 0, (ratio - below) / gap, 0.0).clamp_(0, 1)
        # the fused Adam takes the gradient for contiguous where the variable is
        variable = torch.logit((position - _GAMMA) / (_ZETA - _GAMMA)).contiguous()
        gain = 2 * (_ZETA - _GAMMA) * step / unit
        adam = torch.optim.Adam([variable], lr=self.rate, fused=True)
        for done in range(self.steps):
            sigmoid = variable.sigmoid()
            stretched = sigmoid * (_ZETA - _GAMMA) + _GAMMA
            up = stretched.clamp(0, 1)
            slope = problem.form(torch.addcmul(low, step, up))[1].mul_(gain)
            beta = self._beta(done / self.steps)
            if beta is not None:
                centred = 2 * up - 1
                # |c|^(beta - 1) as an exponential, which is several times faster than a power
                power = centred.abs().log_().mul_(beta - 1).exp_().copysign_(centred)
                slope.sub_(power, alpha=2 * (_ZETA - _GAMMA) * self.strength * beta)
            slope.mul_(sigmoid).mul_(1 - sigmoid)
            variable.grad = slope.mul_(stretched == up).contiguous()
            adam.step()
        return torch.where(variable >= 0, above, below)  # h(0) = 1/2

    def _beta(self, progress: float) -> float | None:
        """The exponent of the regularizer, cosine-annealed; ``None`` while it is off."""
        if progress < self.warm:
            return None
        angle = math.pi * (progress - self.warm) / (1 - self.warm)
        return self.smoothest + (self.sharpest - self.smoothest) * (1 + math.cos(angle)) / 2


def neighbours(ratio: Tensor, target: TensorFormat, zero_point: Tensor) -> tuple[Tensor, Tensor]:
    """The elements of a format on both sides of each value; beyond the outermost element, twice that one.

    Args:
        ratio: float32 tensor, already divided by its scale.
        target: the format.
        zero_point: of an asymmetric integer format, broadcast against ``ratio``.

    Returns:
        The largest element that is not above the value, and the next one.
    """
    if target.number == "int":
        low, high = target.levels
        floor = ratio.floor() + zero_point
        return floor.clamp(low, high) - zero_point, (floor + 1).clamp(low, high) - zero_point
    values = codebook(target, ratio.device)
    values = values[torch.isfinite(values)].sort().values + 0.0  # no negative zero
    after = torch.searchsorted(values, ratio.contiguous(), right=True)
    return values[(after - 1).clamp_(min=0)], values[after.clamp_(max=len(values) - 1)]
