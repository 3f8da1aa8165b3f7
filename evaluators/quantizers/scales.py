r"""Weight scales by least squared error.

For each output channel with weights :math:`w` the scale solves

.. math:: \min_s \sum_i (w_i - s\,\operatorname{clamp}(\operatorname{round}(w_i / s), q_{\min}, q_{\max}))^2

The objective is piecewise quadratic in s with many local minima, so a grid below the absolute maximum brackets the
best one, a finer grid refines it, and alternating least squares (fix the codes, then s = <w, q> / <q, q>; fix s, then
round) ends in its minimum. (Choukroun et al. 2019, arXiv:1902.06822; Banner et al. 2019, arXiv:1810.05723.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...formats import TensorFormat

_CHUNK = 1 << 18  # elements at a time: a chunk and its temporaries stay in the second-level cache


def mse_scales(weight: Tensor, target: TensorFormat, channel_axis: int) -> Tensor:
    """Per-channel scales of least squared error.

    Args:
        weight: float tensor.
        target: a symmetric integer format.
        channel_axis: axis of the output channels.

    Returns:
        float32 tensor [channels]; a channel of zeros gets 1.
    """
    rows = weight.detach().float().movedim(channel_axis, 0).flatten(1)
    step = max(1, _CHUNK // max(1, rows.shape[1]))
    return torch.cat([_mse_rows(chunk, *target.levels) for chunk in rows.split(step)])


def _mse_rows(rows: Tensor, low: int, high: int) -> Tensor:
    """Scales [channels] of ``rows`` [channels, elements]."""
    largest = rows.abs().amax(1)
    unit = torch.where(largest > 0, largest / high, torch.ones_like(largest))
    best = unit.clone()
    error = _error(rows, best, low, high)
    for fraction in torch.linspace(0.95, 0.2, 16).tolist():
        best, error = _better(rows, unit * fraction, best, error, low, high)
    centre = best.clone()
    for fraction in (0.97, 0.985, 1.015, 1.03):
        best, error = _better(rows, centre * fraction, best, error, low, high)
    for _ in range(4):
        codes = (rows / best[:, None]).round_().clamp_(low, high)
        norm = codes.square().sum(1)
        fitted = torch.where(norm > 0, (rows * codes).sum(1) / norm.clamp(min=1), best)
        best, error = _better(rows, fitted, best, error, low, high)
    return best


def _better(rows: Tensor, candidate: Tensor, best: Tensor, error: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    tried = _error(rows, candidate, low, high)
    wins = (tried < error) & (candidate > 0)
    return torch.where(wins, candidate, best), torch.where(wins, tried, error)


def _error(rows: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """Squared error of each row under its scale."""
    column = scale[:, None]
    codes = (rows / column).round_().clamp_(low, high)
    return codes.mul_(column).sub_(rows).square_().sum(1)
