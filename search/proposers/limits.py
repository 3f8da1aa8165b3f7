"""Budgets on prices as rows over tie groups: what a search that changes one gene at a time needs to know of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..groups import Groups, IntArray
from ..problem import Problem

FloatArray = NDArray[np.float64]
_SLACK = 1e-9  # relative, the tolerance of Problem.meets


@dataclass(frozen=True, eq=False)
class Limits:
    """Prices of every group in every format, and the largest sums allowed.

    Attributes:
        rows: float64 [budgets, groups, formats]; 0 where a format is not offered.
        most: largest sum of each row: float64 [budgets], without the constant part of the price.
        scale: difference between the dearest and the cheapest configuration: float64 [budgets], 1 where there is none.
    """

    rows: FloatArray
    most: FloatArray
    scale: FloatArray

    @staticmethod
    def of(problem: Problem, groups: Groups, budgets: Mapping[str, float]) -> Limits:
        """Budgets (totals, the constant part included) by name of their price."""
        shape = groups.allowed.shape
        rows = np.stack([groups.sums(problem.cost(name)) for name in budgets]) if budgets else np.zeros((0, *shape))
        most = np.array([limit * (1 + _SLACK) - problem.prices[name].base for name, limit in budgets.items()])
        width = np.nanmax(rows, axis=2).sum(axis=1) - np.nanmin(rows, axis=2).sum(axis=1)
        return Limits(np.nan_to_num(rows), most.reshape(len(rows)), np.where(width > 0, width, 1.0))

    def totals(self, genes: IntArray) -> FloatArray:
        """Sums of every row: [..., groups] -> [..., budgets]."""
        every = np.arange(self.rows.shape[1])
        picked: FloatArray = self.rows[:, every, genes]  # [budgets, ..., groups]
        return np.moveaxis(picked.sum(axis=-1), 0, -1)

    def excess(self, totals: FloatArray) -> FloatArray:
        """How far budgets are exceeded, each in units of its scale: [..., budgets] -> [...]; 0 where all are met."""
        over: FloatArray = (np.maximum(totals - self.most, 0.0) / self.scale).sum(axis=-1)
        return over

    def after_moves(self, genes: IntArray) -> FloatArray:
        """Sums after the change of one gene: [groups, formats, budgets]."""
        every = np.arange(self.rows.shape[1])
        moved = self.rows - self.rows[:, every, genes][:, :, None]
        return np.moveaxis(moved, 0, -1) + self.totals(genes)
