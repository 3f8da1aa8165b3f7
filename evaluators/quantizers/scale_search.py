r"""Scales of least squared error for symmetric integers and minifloats, row by row.

For the weights :math:`w` of one scale,

.. math:: \min_s \sum_i (w_i - s\,q_i)^2, \qquad q_i = \operatorname{nearest}(w_i / s)

(Choukroun et al. 2019, arXiv:1902.06822; Banner et al. 2019, arXiv:1810.05723.) The objective is one parabola in s for
each set of elements q, with its minimum at s = <w, q> / <q, q>, and there are many sets: the fewer weights and the more
bits, the rougher the curve. So a geometric grid and then a linear one around the best point name candidates, each is
taken to the minimum of its own parabola, and both grids are finer where the curve is rougher. Alternating least squares
(fix the codes, then s; fix s, then round) ends in a minimum. The squared error of integers comes within 1 % of that of
a search over thousands of scales for up to 5 bits, and within 15 % for 8, where it is hundreds of times smaller than
for 4 (``tests/evaluators/test_scales.py``). Short rows of few bits are solved exactly by ``scale_sweep``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...formats import TensorFormat
from .block_scales import plain_scale
from .grid import nearest
from .scale_sweep import is_short, sweep_rows

CHUNK = 1 << 18  # elements at a time: a chunk and its temporaries stay in the second-level cache
_LOWEST, _HIGHEST = 0.04, 2.0  # of the scale that maps the largest weight to the largest code
_FIT_STEPS = 3


def search_rows(rows: Tensor, target: TensorFormat) -> Tensor:
    """Scales of rows.

    Args:
        rows: float32 [scales, elements].
        target: a symmetric integer or a minifloat.

    Returns:
        float32 [scales]; 1 for rows of zeros.
    """
    unit = plain_scale(rows.abs().amax(1), target)
    best, error = unit, squared_errors(rows, unit[:, None], target)[:, 0]
    if is_short(target, rows.shape[1]):
        swept = torch.where(rows.any(1), sweep_rows(rows, target), unit)
        best, error = _better(rows, swept[:, None], best, error, target)
        grids: tuple[Tensor, ...] = ()
    else:
        grids = _grids(target, max(1, rows.shape[1]))
    for grid in (*grids, *[torch.ones(1)] * _FIT_STEPS):
        best, error = _better(rows, best[:, None] * grid.to(best), best, error, target)
    return best


def squared_errors(rows: Tensor, factors: Tensor, target: TensorFormat, zero_points: Tensor | None = None) -> Tensor:
    """Squared error of each row under each of its scales.

    Args:
        rows: float32 [scales, elements].
        factors: float32 [scales, candidates].
        target: format of the elements.
        zero_points: [scales, candidates] for asymmetric integers.

    Returns:
        [scales, candidates].
    """
    found = []
    for index in range(factors.shape[1]):
        factor = factors[:, index, None]
        zero_point = 0.0 if zero_points is None else zero_points[:, index, None]
        found.append(nearest(rows / factor, target, zero_point).mul_(factor).sub_(rows).square_().sum(1))
    return torch.stack(found, 1)


def _grids(target: TensorFormat, elements: int) -> tuple[Tensor, Tensor]:
    """A grid of multiples of the scale that clips nothing, and one of multiples of the best of the first."""
    if target.number == "int" and target.group:  # 7 or 8 bits: half a step of the largest code is all that is at stake
        return torch.linspace(0.5, 1.02, 64), torch.linspace(0.993, 1.007, 16)
    roughness = min(math.sqrt(target.largest), 6.0)  # of 7 and 8 bits little is at stake
    coarse = int(max(23, min(1024, 4096 * roughness / elements)))
    fine = int(max(6 * roughness, min(512, 4096 * roughness / elements)))
    if target.number == "float":  # elements of every size: the curve is flat
        coarse, fine = 24, 12
    ratio = (_HIGHEST / _LOWEST) ** (1 / (coarse - 1))
    geometric = _HIGHEST * ratio ** -torch.arange(coarse, dtype=torch.float32)
    return geometric, torch.linspace(1 / ratio, ratio, fine + 2)[1:-1]


def _better(rows: Tensor, scales: Tensor, best: Tensor, error: Tensor, target: TensorFormat) -> tuple[Tensor, Tensor]:
    """The best scale of each row so far, or one fitted to the codes of ``scales`` [rows, candidates]."""
    weights = rows.t().contiguous()[:, :, None]  # elements first: few of them, many candidates, and sums stay wide
    for block in torch.split(scales, max(1, CHUNK // max(1, rows.numel())), dim=1):
        codes = _rounded(weights / block, target)
        norm, product = codes.square().sum(0), (codes * weights).sum(0)
        fitted = torch.where((product > 0) & (norm > 0), product / norm, block)
        errors, which = codes.mul_(fitted).sub_(weights).square_().sum(0).min(1)
        wins = errors < error
        best = torch.where(wins, fitted.gather(1, which[:, None])[:, 0], best)
        error = torch.where(wins, errors, error)
    return best, error


def _rounded(ratio: Tensor, target: TensorFormat) -> Tensor:
    """``nearest``, in place where that saves a pass."""
    return ratio.round_().clamp_(*target.levels) if target.number == "int" else nearest(ratio, target)
