r"""AdaQuant: learn a perturbation of the weight, and the scale, so that the quantized layer keeps its output.

.. math:: \min_{\Delta, z, V}\; \lVert W X - Q_{\Delta, z}(W + V)\, X \rVert^2

Hubara et al. 2020, arXiv:2006.10518, eq. 2 and 3, layer by layer, for the weights (ranges of activations come from the
observer). Unlike AdaRound a weight may move by more than one level. Gradients pass rounding straight through, and
clipping not at all (V), or into the bound that clips (scale and zero-point).

The expectation over the data is the quadratic form of the second moments, so every step sees all of the data, at the
price of one product of the weight's matrix with the moments. The error of each step is that of the rounded weight; the
best codes and scales met on the way are kept, and the first are those of rounding to nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..quantizers import QuantizedWeight, WeightScale, encode, nearest
from ..quantizers.block_scales import fp16_scale
from .problem import LayerProblem


@dataclass(frozen=True, slots=True)
class AdaQuant:
    """AdaQuant, for every format that has scales.

    Scales of type float32 and float16 are learned; those of block formats (powers of two, or e4m3) stay as they are.

    Attributes:
        steps: of Adam.
        rate: its learning rate for V, in units of the scale.
        scale_rate: for the logarithm of the scale; times the number of levels, for the zero-point.
    """

    steps: int = 200
    rate: float = 0.01
    scale_rate: float = 2e-3

    def __call__(self, problems: Sequence[LayerProblem]) -> list[QuantizedWeight]:
        """Quantize the weight of a layer in every format.

        Args:
            problems: one a format, all with the same moments.

        Returns:
            The quantized weights. The output error is not larger than with rounding to nearest: in every channel, or,
            where channels share scales, over the layer.
        """
        return [self._solve(problem) for problem in problems]

    def _solve(self, problem: LayerProblem) -> QuantizedWeight:
        state = _State(problem)
        unit = problem.errors(problem.nearest).clamp(min=torch.finfo(torch.float32).tiny)
        best = _Best(problem)
        adam = torch.optim.Adam(
            [
                {"params": [state.shift], "lr": self.rate},
                {"params": [state.logarithm], "lr": self.scale_rate},
                {"params": [state.zero], "lr": self.scale_rate * 2**problem.target.bits},
            ],
            fused=True,
        )
        for done in range(self.steps + 1):
            matrix, codes, scales = state.quantized()
            value, product = problem.form(problem.split(matrix.detach()) - problem.blocks)
            best.offer(problem.moment.blocks.by_channel(value), codes, scales)
            if done == self.steps:
                break
            adam.zero_grad()
            torch.autograd.backward([matrix], [problem.moment.blocks.join(product) * 2 / unit[:, None]])
            for group in adam.param_groups:
                group["lr"] *= (self.steps - done) / (self.steps - done + 1)
            adam.step()
        return best.quantized()


class _State:
    """What is learned, and the weight that it stands for."""

    def __init__(self, problem: LayerProblem) -> None:
        self.problem, self.target, scales = problem, problem.target, problem.scales
        self.learned = self.target.scale in ("fp32", "fp16")
        self.weight = problem.layout.matrix(problem.weight.detach().float()).contiguous()
        self.shift = torch.zeros_like(self.weight, requires_grad=True)
        self.logarithm = torch.zeros_like(scales.scale, requires_grad=self.learned)
        start = torch.zeros_like(scales.scale) if scales.zero_point is None else scales.zero_point.clone()
        self.zero = start.requires_grad_(scales.zero_point is not None)
        self.unit = problem.layout.expand(scales.factor)

    def quantized(self) -> tuple[Tensor, Tensor, WeightScale]:
        """The fake-quantized matrix (with its gradients), its codes [channels, elements] and its scales."""
        expand, scales = self.problem.layout.expand, self._scales()
        factor = expand(scales.factor)
        zero = factor.new_zeros(()) if scales.zero_point is None else expand(scales.zero_point)
        ratio = (self.weight + self.shift * self.unit) / factor
        bound = self.target.largest
        low, high = self.target.levels if self.target.number == "int" else (-bound, bound)
        clipped = ratio.clamp(low - zero, high - zero)
        with torch.no_grad():
            elements = nearest(ratio, self.target, zero)
            codes = encode(elements, self.target, zero)
        matrix = (clipped + (elements - clipped).detach()) * factor
        return matrix, codes, _detached(scales)

    def _scales(self) -> WeightScale:
        given = self.problem.scales
        scale, zero = given.scale, given.zero_point
        if self.learned:
            scale = scale * self.logarithm.exp()
            if self.target.scale == "fp16":
                scale = _straight(scale, fp16_scale(scale.detach()))
        if zero is not None:
            low, high = self.target.levels
            zero = _straight(self.zero, self.zero.detach().round().clamp(low, high))
        return replace(given, scale=scale, zero_point=zero)


class _Best:
    """The codes and scales of least error so far: by channel, or of the layer where channels share scales."""

    def __init__(self, problem: LayerProblem) -> None:
        self.problem = problem
        self.codes = problem.layout.matrix(problem.nearest.codes)
        self.scales = problem.scales
        self.errors = problem.errors(problem.nearest)
        self.shared = problem.target.granularity in ("tensor", "block")

    def offer(self, errors: Tensor, codes: Tensor, scales: WeightScale) -> None:
        """Keep what is better."""
        better = (errors.sum() < self.errors.sum()).expand_as(errors) if self.shared else errors < self.errors
        self.errors = torch.where(better, errors, self.errors)
        self.codes = torch.where(better[:, None], codes, self.codes)
        self.scales = replace(
            self.scales,
            scale=self._chosen(better, scales.scale, self.scales.scale),
            zero_point=None
            if scales.zero_point is None or self.scales.zero_point is None
            else self._chosen(better, scales.zero_point, self.scales.zero_point),
        )

    def _chosen(self, better: Tensor, new: Tensor, old: Tensor) -> Tensor:
        if self.shared:
            return torch.where(better[0], new, old)
        return torch.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    def quantized(self) -> QuantizedWeight:
        """The best weight."""
        layout = self.problem.layout
        return QuantizedWeight(layout.tensor(self.codes).contiguous(), self.scales, layout)


def _straight(value: Tensor, rounded: Tensor) -> Tensor:
    """A rounded value with the gradient of the value."""
    return value + (rounded - value).detach()


def _detached(scales: WeightScale) -> WeightScale:
    zero = scales.zero_point
    return replace(scales, scale=scales.scale.detach(), zero_point=None if zero is None else zero.detach())
