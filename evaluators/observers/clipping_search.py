r"""Search for the clipping range of least loss, on a histogram.

Ranges are shares :math:`(\lambda, \eta)` of the extremes, :math:`[\lambda l, \eta h]` with
:math:`2^{-6} \le \lambda, \eta \le 1`; symmetric formats move both ends together. Coordinate descent: a geometric grid
over each end in turn, then finer ones around the best. Grids are relative, so a tensor of any magnitude takes the same
steps. The range that clips nothing is always among the candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ...formats import TensorFormat
from ..quantizers import Range, activation_quantizer

#: (points, counts, points as rounded, clipping range) -> loss [columns]; all but the range are [points, columns].
Loss = Callable[[Tensor, Tensor, Tensor, Range], Tensor]

_CHUNK = 1 << 20  # elements at a time


def _powers(first: float, last: float, steps_each: int) -> Tensor:
    """Powers of two from one exponent to another, ``steps_each`` to a factor of two, the largest first."""
    steps = round((first - last) * steps_each)
    return 2.0 ** torch.linspace(first, last, steps + 1)


#: Relative to the best so far: everything, then finer and finer around it (the last step is 1 %).
_GRIDS = (_powers(0, -6, 4), _powers(1.5, -1.5, 4), _powers(0.25, -0.25, 16), _powers(0.0625, -0.0625, 64))


def clipping_range(points: Tensor, counts: Tensor, extremes: Range, target: TensorFormat, loss: Loss) -> Range:
    """The range of least loss.

    Args:
        points: values, float32 [points, columns].
        counts: how often each comes, [points, columns].
        extremes: smallest and largest values, each [columns].
        target: a format with static scales, one for each column.
        loss: what is minimized.

    Returns:
        The range, each end [columns]; within the extremes.
    """
    if not len(points):  # all zeros
        return extremes
    low, high = extremes.low.clamp(max=0), extremes.high.clamp(min=0)
    moves = [(False, True), (True, False)]  # which ends take the candidates
    if target.symmetric:
        moves, high = [(True, True)], torch.maximum(-low, high)
        low = -high
    target = replace(target, granularity="channel")
    shares, best = torch.ones(2, len(low), device=low.device), torch.full_like(low, torch.inf, dtype=torch.float64)
    for grid in _GRIDS:
        for move in moves:
            factors = torch.where(torch.tensor(move)[:, None], grid, 1.0).to(shares)  # [2, candidates]
            tried = (factors[:, :, None] * shares[:, None, :]).clamp_(2**-6, 1)  # [2, candidates, columns]
            losses = _losses(points, counts, Range(tried[0] * low, tried[1] * high), target, loss)
            least, which = losses.min(0)
            chosen = tried.gather(1, which.expand(2, 1, -1))[:, 0]
            shares, best = torch.where(least < best, chosen, shares), torch.where(least < best, least, best)
    return Range((shares[0] * low).maximum(extremes.low), (shares[1] * high).minimum(extremes.high))


def _losses(points: Tensor, counts: Tensor, ranges: Range, target: TensorFormat, loss: Loss) -> Tensor:
    """Loss of every candidate: float64 [candidates, columns] for ranges [candidates, columns]."""
    columns = ranges.low.shape[1]
    step = max(1, _CHUNK // max(1, points.numel()))
    found = []
    for low, high in zip(torch.split(ranges.low, step), torch.split(ranges.high, step), strict=True):
        repeats = len(low)
        values, weights = points.repeat(1, repeats), counts.repeat(1, repeats)
        tried = Range(low.reshape(-1), high.reshape(-1))  # a candidate is to the quantizer what a feature is
        rounded = activation_quantizer(target, tried)(values)
        found.append(loss(values, weights, rounded, tried).double().reshape(repeats, columns))
    return torch.cat(found)
