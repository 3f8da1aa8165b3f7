"""The problem that every reconstruction solves: the elements of a weight that keep the output of its layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from ...formats import TensorFormat
from ..quantizers import Layout, QuantizedWeight, WeightScale, encode, quantize_weight
from .moments import Moment


@dataclass(frozen=True)
class LayerProblem:
    r"""Choose :math:`\hat W` on the grid of a format so that the output error of a layer is small.

    .. math:: \min_{\hat W} \operatorname{tr}\big((W - \hat W)\, H\, (W - \hat W)^\top\big)

    The objective is a sum over the output channels, which are independent where they share no scale.

    Attributes:
        weight: the float weight.
        layout: its matrix view and format.
        scales: of the weight in this format; what rounds to nearest, and where a method starts.
        moment: of the input.
    """

    weight: Tensor
    layout: Layout
    scales: WeightScale
    moment: Moment

    @property
    def target(self) -> TensorFormat:
        """The format."""
        return self.layout.target

    @cached_property
    def blocks(self) -> Tensor:
        """W, float32 [blocks, channels, elements]."""
        return self.split(self.layout.matrix(self.weight.detach().float()))

    @cached_property
    def factor(self) -> Tensor:
        """The scale of every weight, float32 [blocks, channels, elements]."""
        return self._spread(self.scales.factor)

    @cached_property
    def zero_point(self) -> Tensor:
        """The zero-point of every weight, float32 [blocks, channels, elements]; [] for symmetric formats."""
        zero = self.scales.zero_point
        return self.weight.new_zeros((), dtype=torch.float32) if zero is None else self._spread(zero)

    @cached_property
    def nearest(self) -> QuantizedWeight:
        """The weight rounded to nearest under the given scales."""
        return quantize_weight(self.weight, self.target, self.scales, self.layout.channel_axis)

    def split(self, matrix: Tensor) -> Tensor:
        """[channels, elements] -> [blocks, channels, elements], contiguous."""
        return self.moment.blocks.split(matrix).contiguous()

    def form(self, difference: Tensor) -> tuple[Tensor, Tensor]:
        """The quadratic form of a difference D [blocks, channels, elements].

        Returns:
            Its value for every channel, diag(D H D^T) [blocks, channels], and D H, half of its gradient.
        """
        product = torch.bmm(difference, self.moment.matrix)
        return torch.einsum("bce,bce->bc", difference, product), product

    def errors(self, quantized: QuantizedWeight) -> Tensor:
        """The mean squared error that a quantized weight causes in every output channel: float32 [channels].

        A channel that a transposed convolution has in every group counts once, with the sum.
        """
        found = self.split(self.layout.matrix(quantized.dequantize()))
        return self.moment.blocks.by_channel(self.form(found - self.blocks)[0])

    def quantized(self, elements: Tensor) -> QuantizedWeight:
        """The weight made of elements [blocks, channels, elements] under the given scales.

        Channels whose output is not closer to the float layer's than with rounding to nearest are rounded to nearest.
        """
        codes = self.moment.blocks.join(encode(elements, self.target, self.zero_point))
        found = QuantizedWeight(self.layout.tensor(codes).contiguous(), self.scales, self.layout)
        better = self.errors(found) < self.errors(self.nearest)
        chosen = torch.where(better[:, None], codes, self.layout.matrix(self.nearest.codes))
        return QuantizedWeight(self.layout.tensor(chosen).contiguous(), self.scales, self.layout)

    def _spread(self, scale: Tensor) -> Tensor:
        return self.split(self.layout.expand(scale).expand(self.layout.matrix_shape))


class Reconstruction(Protocol):
    """A method that solves ``LayerProblem``."""

    def __call__(self, problems: Sequence[LayerProblem]) -> list[QuantizedWeight]:
        """Solve the problems of one layer: one a format, all with the same moments."""
        ...
