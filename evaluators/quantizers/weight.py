r"""Quantized weights: codes, scales, zero-points.

Affine quantization of a tensor :math:`x` to codes :math:`q` (Jacob et al. 2018, arXiv:1712.05877, eq. 1; ONNX
``QuantizeLinear``):

.. math::
    q = \operatorname{clamp}(\operatorname{round}(x / s) + z,\; q_{\min}, q_{\max}), \qquad \hat x = s (q - z)

``round`` is half to even. Signed symmetric codes use the full range :math:`[-2^{b-1}, 2^{b-1}-1]` with z = 0.
Minifloats and nf4 round x / s to their nearest element (``grid``), and :math:`\hat x = s\,q`. nvfp4 multiplies by the
rounded reciprocal of its two scales instead of dividing, as its kernels do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...formats import TensorFormat
from .block_scales import reciprocal
from .grid import decode, encode, nearest
from .layout import Layout

_BLOCK = 1 << 20  # elements


@dataclass(frozen=True)
class WeightScale:
    """The scales of a weight in one format.

    Attributes:
        scale: float32 tensor [*Layout.scale_shape], positive, representable in the format's scale type.
        zero_point: float32 tensor of integers of that shape; ``None`` for symmetric formats.
        tensor_scale: float32 tensor [] that multiplies all scales (nvfp4); ``None`` for other formats.
    """

    scale: Tensor
    zero_point: Tensor | None = None
    tensor_scale: Tensor | None = None

    @property
    def factor(self) -> Tensor:
        """What multiplies the elements: the scale, times the scale of the tensor where there is one."""
        return self.scale if self.tensor_scale is None else self.scale * self.tensor_scale


@dataclass(frozen=True)
class QuantizedWeight:
    """Codes of a weight and their scales.

    Attributes:
        codes: int8 (symmetric integers) or uint8 tensor of the weight's shape; see ``grid.encode``.
        scales: of those codes.
        layout: which elements share a scale.
    """

    codes: Tensor
    scales: WeightScale
    layout: Layout

    @property
    def target(self) -> TensorFormat:
        """The format."""
        return self.layout.target

    @property
    def scale(self) -> Tensor:
        """The scales: float32 [*Layout.scale_shape]."""
        return self.scales.scale

    @property
    def channel_axis(self) -> int:
        """The axis of the output channels."""
        return self.layout.channel_axis

    def dequantize(self) -> Tensor:
        """The float32 weight that the codes stand for."""
        matrix, layout = self.layout.matrix(self.codes), self.layout
        zero_point = None if self.scales.zero_point is None else layout.expand(self.scales.zero_point)
        factor = layout.expand(self.scales.factor)
        found = torch.empty(matrix.shape, device=matrix.device)
        for rows in _row_blocks(matrix):
            elements = decode(matrix[rows], self.target, _of(zero_point, rows))
            torch.mul(elements, _of(factor, rows), out=found[rows])
        return layout.tensor(found).contiguous()


def quantize_weight(weight: Tensor, target: TensorFormat, scales: WeightScale, channel_axis: int) -> QuantizedWeight:
    """Round a weight to the nearest element under given scales.

    Args:
        weight: float tensor.
        target: a narrow format.
        scales: as ``mse_scales`` or ``minmax_scales`` choose them.
        channel_axis: the axis of the output channels.

    Returns:
        Codes, scales and layout.
    """
    layout = Layout.of(weight, target, channel_axis)
    zero_point = None if scales.zero_point is None else layout.expand(scales.zero_point)
    matrix = layout.matrix(weight.detach())
    divides = scales.tensor_scale is None
    factor = layout.expand(
        scales.scale if scales.tensor_scale is None else reciprocal(scales.scale, scales.tensor_scale)
    )
    signed = target.number == "int" and target.symmetric
    codes = torch.empty(matrix.shape, dtype=torch.int8 if signed else torch.uint8, device=matrix.device)
    for rows in _row_blocks(matrix):
        value, by, shift = matrix[rows].float(), _of(factor, rows), _of(zero_point, rows)
        ratio = value / by if divides else value * by
        codes[rows] = encode(nearest(ratio, target, shift), target, shift)
    return QuantizedWeight(layout.tensor(codes).contiguous(), scales, layout)


def _row_blocks(matrix: Tensor) -> Iterator[slice]:
    """Blocks of rows, so that what is computed on the way stays small beside a large weight."""
    step = max(1, _BLOCK // max(1, matrix.shape[1]))
    for start in range(0, matrix.shape[0], step):
        yield slice(start, start + step)


def _of(expanded: Tensor | None, rows: slice) -> Tensor | float:
    """The rows of expanded scales or zero-points; those of a whole tensor are the same for all rows."""
    if expanded is None:
        return 0.0
    return expanded if expanded.shape[0] == 1 else expanded[rows]
