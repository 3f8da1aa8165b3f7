r"""Exact repair: the change that makes a configuration meet its budgets, and the use of what they leave.

Repair lowers one random gene after another, each by the smallest step that lessens the excess

.. math:: \sum_b \max(0, \textstyle\sum_g c_{b g x_g} - C_b) / s_b

(:math:`s_b` the range of price b) until it is 0. Where no single step lessens it (two prices that pull apart, or genes
that must stay), the configuration nearest to the wanted one is solved for exactly:

.. math:: \min_x \sum_g w_g |r(x_g) - r(y_g)| \quad \text{subject to the budgets}

with the rank r of a format in its group and random weights :math:`w_g \in [1, 2)`, so that ties are broken at random.
A price need not rise with precision: only the tables decide which step helps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...errors import InfeasibleBudget
from ..allocation import allocate
from ..groups import IntArray
from .limits import FloatArray, Limits

BoolArray = NDArray[np.bool_]


def repaired(
    genes: IntArray, limits: Limits, allowed: BoolArray, generator: np.random.Generator, keep: BoolArray | None = None
) -> IntArray | None:
    """A configuration within the limits, near to the wanted one.

    Args:
        genes: what is wanted: [groups].
        limits: budgets.
        allowed: [groups, formats].
        generator: of the random choices.
        keep: [groups], genes that stay unless nothing else helps.

    Returns:
        Genes [groups]; ``None`` if no configuration meets the limits.
    """
    found = genes.copy()
    free = np.ones(len(genes), dtype=bool) if keep is None else ~keep
    excess = float(limits.excess(limits.totals(found)))
    while excess > 0:
        reached = limits.excess(limits.after_moves(found))
        helps = allowed & free[:, None] & (reached < excess * (1 - 1e-12))
        moves = _nearest(helps, found)
        if not len(moves):
            return _solved(genes, limits, allowed, generator)
        found, excess = _moved(found, generator.permutation(moves), excess - reached, excess, limits)
    return found


def filled(
    genes: IntArray, limits: Limits, allowed: BoolArray, generator: np.random.Generator, keep: BoolArray
) -> IntArray:
    """What the budgets leave is spent: random genes take the next finer format while one fits.

    Args:
        genes: within the limits: [groups].
        limits: budgets.
        allowed: [groups, formats].
        generator: of the random choices.
        keep: [groups], genes that stay.

    Returns:
        Genes [groups] of which none outside ``keep`` can go one step finer.
    """
    found = genes.copy()
    columns = np.arange(allowed.shape[1])
    while True:
        fits = limits.excess(limits.after_moves(found)) <= 0
        finer = allowed & ~keep[:, None] & (columns > found[:, None])
        step = finer & (np.cumsum(finer, axis=1) == 1) & fits
        moves = np.argwhere(step)
        if not len(moves):
            return found
        group, column = moves[int(generator.integers(len(moves)))]
        found[group] = column


def _moved(
    genes: IntArray, moves: IntArray, gains: FloatArray, excess: float, limits: Limits
) -> tuple[IntArray, float]:
    """As many of the moves [moves, 2], from the first on, as together do not overshoot; and the excess then."""
    sums = np.cumsum(gains[moves[:, 0], moves[:, 1]])
    for count in (max(1, int(np.searchsorted(sums, excess))), 1):
        found = genes.copy()
        found[moves[:count, 0]] = moves[:count, 1]
        left = float(limits.excess(limits.totals(found)))
        if left < excess:  # several budgets: moves that help alone may harm together
            break
    return found, left


def _nearest(helps: BoolArray, genes: IntArray) -> IntArray:
    """Of every group the useful move to the nearest column, the coarser of two: [moves, 2] of (group, column)."""
    columns = np.arange(helps.shape[1])
    distance = np.where(helps, np.abs(columns - genes[:, None]), len(columns))
    groups = np.flatnonzero(helps.any(axis=1))
    moves: IntArray = np.column_stack([groups, distance[groups].argmin(axis=1)]).astype(np.int64)
    return moves


def _solved(genes: IntArray, limits: Limits, allowed: BoolArray, generator: np.random.Generator) -> IntArray | None:
    """The nearest configuration within the limits, by exact allocation."""
    rank = np.cumsum(allowed, axis=1)
    away = np.abs(rank - rank[np.arange(len(genes)), genes][:, None])
    weights = 1 + generator.random(len(genes))
    names = [str(row) for row in range(len(limits.rows))]
    try:
        found = allocate(
            away * weights[:, None],
            dict(zip(names, limits.rows, strict=True)),
            dict(zip(names, limits.most.tolist(), strict=True)),
            allowed=allowed,
        )
    except InfeasibleBudget:
        return None
    nearest: IntArray = np.asarray(found.choice, dtype=np.int64)
    return nearest
