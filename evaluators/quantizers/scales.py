r"""Weight scales by least squared error.

For each output channel with weights :math:`w` the scale solves

.. math:: \min_s \sum_i (w_i - s\,\operatorname{clamp}(\operatorname{round}(w_i / s), q_{\min}, q_{\max}))^2

(Choukroun et al. 2019, arXiv:1902.06822; Banner et al. 2019, arXiv:1810.05723.) The objective is one parabola in s for
each set of codes q, with its minimum at s = <w, q> / <q, q>, and there are many sets: the fewer weights a channel has
and the more bits, the rougher the curve. So a geometric grid and then a linear one around the best point name
candidates, each is taken to the minimum of its own parabola, and both grids are finer where the curve is rougher.
Alternating least squares (fix the codes, then s; fix s, then round) ends in a minimum. The squared error comes within
1 % of that of a search over thousands of scales for up to 5 bits, and within 15 % for 8, where it is hundreds of times
smaller than for 4 (``tests/evaluators/test_scales.py``).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...formats import TensorFormat
from .layout import Layout
from .weight import WeightScale

_CHUNK = 1 << 18  # elements at a time: a chunk and its temporaries stay in the second-level cache
_LOWEST, _HIGHEST = 0.04, 2.0  # of the scale that maps the largest weight to the largest code
_FIT_STEPS = 3


def choose_scales(weight: Tensor, target: TensorFormat, channel_axis: int, method: str = "mse") -> WeightScale:
    """Scales (and zero-points) of a weight by ``"mse"`` or ``"minmax"``."""
    return {"mse": mse_scales, "minmax": minmax_scales}[method](weight, target, channel_axis)


def minmax_scales(weight: Tensor, target: TensorFormat, channel_axis: int) -> WeightScale:
    """The smallest scales that clip nothing."""
    rows = Layout.of(weight, target, channel_axis).rows(weight.detach().float())
    largest = rows.abs().amax(1)
    return WeightScale(torch.where(largest > 0, largest / target.largest, torch.ones_like(largest)))


def mse_scales(weight: Tensor, target: TensorFormat, channel_axis: int) -> WeightScale:
    """Scales of least squared error.

    Args:
        weight: float tensor.
        target: a narrow format.
        channel_axis: axis of the output channels.

    Returns:
        The scales; elements that are all zero get 1.
    """
    layout = Layout.of(weight, target, channel_axis)
    rows = layout.rows(weight.detach().float())
    step = max(1, _CHUNK // max(1, rows.shape[1]))
    found = torch.cat([_mse_rows(chunk, *target.levels) for chunk in torch.split(rows, step)])
    return WeightScale(found.reshape(layout.scale_shape))


def _mse_rows(rows: Tensor, low: int, high: int) -> Tensor:
    """Scales [channels] of ``rows`` [channels, elements]."""
    largest = rows.abs().amax(1)
    unit = torch.where(largest > 0, largest / high, torch.ones_like(largest))
    elements, roughness = max(1, rows.shape[1]), min(math.sqrt(high), 6.0)  # of 7 and 8 bits little is at stake
    coarse = int(max(23, min(1024, 4096 * roughness / elements)))
    fine = int(max(6 * roughness, min(512, 4096 * roughness / elements)))
    ratio = (_HIGHEST / _LOWEST) ** (1 / (coarse - 1))
    best, error = unit, _error(rows, unit, low, high)
    for grid in (
        _HIGHEST * ratio ** -torch.arange(coarse, dtype=torch.float32),
        torch.linspace(1 / ratio, ratio, fine + 2)[1:-1],
        *[torch.ones(1)] * _FIT_STEPS,
    ):
        best, error = _better(rows, best[:, None] * grid.to(best), best, error, low, high)
    return best


def _better(rows: Tensor, scales: Tensor, best: Tensor, error: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    """The best scale of each row so far, or one fitted to the codes of ``scales`` [channels, candidates]."""
    weights = rows.t().contiguous()[:, :, None]  # elements first: few of them, many candidates, and sums stay wide
    for block in torch.split(scales, max(1, _CHUNK // max(1, rows.numel())), dim=1):
        codes = (weights / block).round_().clamp_(low, high)
        norm, product = codes.square().sum(0), (codes * weights).sum(0)
        fitted = torch.where(product > 0, product / norm, block)
        errors, which = codes.mul_(fitted).sub_(weights).square_().sum(0).min(1)
        wins = errors < error
        best = torch.where(wins, fitted.gather(1, which[:, None])[:, 0], best)
        error = torch.where(wins, errors, error)
    return best, error


def _error(rows: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """Squared error of each row under its scale."""
    column = scale[:, None]
    codes = (rows / column).round_().clamp_(low, high)
    return codes.mul_(column).sub_(rows).square_().sum(1)
