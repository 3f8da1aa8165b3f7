r"""Activation quantizers that compute scales from the tensor itself: per token, per group, and block formats.

For the elements v that share a scale (a row of the last axis, or a group of features in it):

- symmetric integers and minifloats: :math:`s = \max |v|` over the largest element;
- asymmetric integers: the range of v, widened to hold zero (``asymmetric_scales.range_scales``);
- mx formats and nvfp4: ``block_scales``. nvfp4 has a static scale for the tensor from calibration besides.

Where v is all zero, s = 1. A NaN or infinity in v makes all of v NaN in formats with float32 scales: nothing is hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InvalidInput
from ...formats import TensorFormat
from .asymmetric_scales import range_scales
from .block_scales import e4m3_scale, plain_scale, power_of_two_scale, reciprocal, whole_scale
from .grid import nearest
from .layout import as_groups, from_groups
from .static_activation import Range


@dataclass(frozen=True)
class DynamicQuantizer:
    """Quantization with scales from the tensor itself.

    Attributes:
        target: a dynamic format; its granularity is ``token`` or ``group``.
    """

    target: TensorFormat

    def __call__(self, value: Tensor) -> Tensor:
        """Fake quantization, in the type of ``value``."""
        if not value.numel():
            return value.detach().clone()
        rows = value.detach().float()
        rows = as_groups(rows, self.target.group) if self.target.granularity == "group" else rows
        scale, zero_point = self._scales(rows)
        rounded = nearest(rows / scale, self.target, zero_point).mul_(scale)
        rounded = from_groups(rounded, value.shape[-1]) if self.target.granularity == "group" else rounded
        return rounded.to(value.dtype)

    def _scales(self, rows: Tensor) -> tuple[Tensor, Tensor | float]:
        """Scales and zero-points of rows [..., elements]: [..., 1]."""
        if not self.target.symmetric:
            return range_scales(*torch.aminmax(rows, dim=-1, keepdim=True), self.target)
        largest = rows.abs().amax(-1, keepdim=True)
        rule = power_of_two_scale if self.target.scale == "e8m0" else plain_scale
        return rule(largest, self.target), 0.0


@dataclass(frozen=True)
class BlockScaledQuantizer:
    """nvfp4: a static float32 scale for the tensor, e4m3 scales of blocks from the tensor itself.

    Attributes:
        tensor_scale: of the whole tensor, positive.
        target: the format of the elements.
    """

    tensor_scale: float
    target: TensorFormat

    @staticmethod
    def from_range(found: Range, target: TensorFormat) -> BlockScaledQuantizer:
        """The quantizer whose largest block scale and largest element meet at the larger end of the range.

        Raises:
            InvalidInput: the range is not finite.
        """
        largest = torch.maximum(found.low.abs(), found.high.abs()).float().amax()
        if not bool(largest.isfinite()):
            raise InvalidInput(
                f"activation range [{float(found.low)}, {float(found.high)}] is not finite; check the calibration data"
            )
        return BlockScaledQuantizer(float(whole_scale(largest, target)), target)

    def __call__(self, value: Tensor) -> Tensor:
        """Fake quantization, in the type of ``value``."""
        if not value.numel():
            return value.detach().clone()
        blocks = as_groups(value.detach().float(), self.target.group)
        whole = torch.tensor(self.tensor_scale, device=value.device)
        scale = e4m3_scale(blocks.abs().amax(-1, keepdim=True), self.target, whole)
        rounded = nearest(blocks * reciprocal(scale, whole), self.target).mul_(scale * whole)
        return from_groups(rounded, value.shape[-1]).to(value.dtype)
