r"""Scales and zero-points of asymmetric integers.

With :math:`l = \min(\min w, 0)` and :math:`h = \max(\max w, 0)`, the min-max choice is

.. math:: s = (h - l) / (2^b - 1), \qquad z = \operatorname{clamp}(\operatorname{round}(-l / s), 0, 2^b - 1)

(Jacob et al. 2018, arXiv:1712.05877, section 3), every operation rounded to float32: z is a code, so zero is exact.
Static and dynamic activations and weights share this rule.

The choice of least squared error tries ranges :math:`[\alpha l, \beta h]` on a grid, then scales and zero-points around
the best; each candidate's scale is taken to the minimum of its parabola, :math:`s = \langle w, u \rangle / \langle u, u
\rangle` with :math:`u = q - z`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...formats import TensorFormat
from .block_scales import fp16_scale, plain_scale
from .scale_search import CHUNK

_SHRINK = (1.0, 0.93, 0.86, 0.78, 0.7, 0.6, 0.5, 0.4)  # of either end of the range
_AROUND = (0.92, 0.94, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06)  # of the scale
_FIT_STEPS = 3

_State = tuple[Tensor, Tensor, Tensor]  # scale, zero-point and squared error of each row


def range_scales(low: Tensor, high: Tensor, target: TensorFormat) -> tuple[Tensor, Tensor]:
    """Scale and zero-point of ranges that are widened to hold zero.

    Args:
        low: lower ends, float32 of any shape.
        high: upper ends, of the same shape.
        target: an asymmetric integer; scales are rounded to fp16 where it stores them so.

    Returns:
        Scales and zero-points of that shape, float32; 1 and 0 where the range is (nearly) empty.
    """
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = torch.where(
        (high - low).isinf(),  # of finite ends: halves of float32 are exact
        2 * plain_scale(high / 2 - low / 2, target),
        plain_scale(high - low, target),
    )
    if target.scale == "fp16":
        scale = fp16_scale(scale)
    return scale, (-low / scale).round_().clamp_(*target.levels)


def search_range_rows(rows: Tensor, target: TensorFormat) -> tuple[Tensor, Tensor]:
    """Scales and zero-points of least squared error.

    Args:
        rows: float32 [scales, elements].
        target: an asymmetric integer.

    Returns:
        Scales and zero-points, each float32 [scales]; 1 and 0 for rows of zeros.
    """
    low, high = (end[:, None] for end in torch.aminmax(rows, dim=1))
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    shrink = low.new_tensor(_SHRINK)
    count = len(_SHRINK)
    lows = (low * shrink)[:, :, None].expand(-1, -1, count).flatten(1)
    highs = (high * shrink)[:, None].expand(-1, count, -1).flatten(1)
    scales, zeros = range_scales(lows, highs, target)
    state: _State = scales[:, 0], zeros[:, 0], torch.full_like(scales[:, 0], torch.inf)
    state = _better(rows, scales, zeros, state, target)
    steps = torch.cartesian_prod(low.new_tensor(_AROUND), low.new_tensor((-1.0, 0.0, 1.0)))
    for around in (steps, *[steps.new_tensor([[1.0, 0.0]])] * _FIT_STEPS):
        zeros = (state[1][:, None] + around[:, 1]).clamp(*target.levels)
        state = _better(rows, state[0][:, None] * around[:, 0], zeros, state, target)
    empty = low[:, 0] == high[:, 0]
    return torch.where(empty, 1.0, state[0]), torch.where(empty, 0.0, state[1])


def _better(rows: Tensor, scales: Tensor, zeros: Tensor, state: _State, target: TensorFormat) -> _State:
    """The best of each row so far, or a candidate of ``scales`` and ``zeros`` [rows, candidates], its scale fitted."""
    weights = rows.t().contiguous()[:, :, None]
    low, high = target.levels
    best, zero, error = state
    width = max(1, CHUNK // max(1, rows.numel()))
    for block, block_zeros in zip(torch.split(scales, width, 1), torch.split(zeros, width, 1), strict=True):
        codes = (weights / block).round_().clamp_(low - block_zeros, high - block_zeros)
        norm, product = codes.square().sum(0), (codes * weights).sum(0)
        fitted = torch.where((product > 0) & (norm > 0), product / norm, block)
        errors, which = codes.mul_(fitted).sub_(weights).square_().sum(0).min(1)
        wins = errors < error
        best = torch.where(wins, fitted.gather(1, which[:, None])[:, 0], best)
        zero = torch.where(wins, block_zeros.gather(1, which[:, None])[:, 0], zero)
        error = torch.where(wins, errors, error)
    return best, zero, error
