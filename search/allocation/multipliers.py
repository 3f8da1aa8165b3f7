"""Lagrange multipliers of several budgets: the dual of the linear relaxation by cutting planes.

    q(lam) = sum_g min_j (loss[g, j] + sum_r lam_r rows[r, g, j]) - sum_r lam_r limits[r]

is concave and piecewise linear in the few multipliers, and each of its values is a lower bound of every configuration
that meets the budgets. J. E. Kelley's cutting planes (The cutting-plane method for solving convex programs, SIAM 8,
1960) find its maximum in some dozens of evaluations of O(groups choices rows); the master program has only `rows + 1`
variables. The box around the best point is zoomed three times, so that the accuracy is relative to the local scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .problem import FloatArray

_ZOOMS = 4
_CUTS = 60
_GROWTH = 6


@dataclass(frozen=True, eq=False)
class Dual:
    """Multipliers with their bound.

    Args:
        multipliers: Shape [rows], not negative.
        bound: `q(multipliers)`, a lower bound of the objective.
        evaluations: How often `q` was evaluated.
    """

    multipliers: FloatArray
    bound: float
    evaluations: int


def best_multipliers(loss: FloatArray, rows: FloatArray, limits: FloatArray) -> Dual:
    """Maximises `q`; any answer is a valid bound, the maximum is the best that additive prices can prove.

    Args:
        loss: Shape [groups, choices], `inf` where a choice is not offered.
        rows: Shape [rows, groups, choices], finite.
        limits: Shape [rows].

    Returns:
        The multipliers.
    """
    search = _Kelley(loss, rows, limits)
    finite = np.where(np.isfinite(loss), loss, np.nan)
    spread = np.nanmax(np.nanmax(finite, axis=1) - np.nanmin(finite, axis=1))
    width = np.array([np.ptp(row[np.isfinite(loss)]) for row in rows])
    unit = np.where(width > 0, spread / np.where(width > 0, width, 1.0), 0.0)
    low, high = np.zeros(len(rows)), unit * 100.0
    search.maximise(low, high)
    for _ in range(_GROWTH):
        at_edge = search.best > 0.99 * high
        if not (at_edge & (high > 0)).any():
            break
        high = np.where(at_edge, high * 1e3, high)
        search.maximise(low, high)
    span = high - low
    for _ in range(_ZOOMS - 1):
        span = span / 1e3
        search.maximise(np.maximum(search.best - span, 0.0), search.best + span)
    return Dual(search.best, search.value, search.evaluations)


class _Kelley:
    def __init__(self, loss: FloatArray, rows: FloatArray, limits: FloatArray) -> None:
        self.loss, self.rows, self.limits = loss, rows, limits
        self.every = np.arange(len(loss))
        self.best = np.zeros(len(rows))
        self.evaluations = 0
        self.value, _ = self.evaluate(self.best)

    def evaluate(self, multipliers: FloatArray) -> tuple[float, FloatArray]:
        """`q` and a supergradient."""
        self.evaluations += 1
        priced = self.loss + np.tensordot(multipliers, self.rows, 1)
        picked = priced.argmin(axis=1)
        value = float(priced[self.every, picked].sum() - multipliers @ self.limits)
        return value, self.rows[:, self.every, picked].sum(axis=1) - self.limits

    def maximise(self, low: FloatArray, high: FloatArray) -> None:
        import highspy

        span = high - low
        point = np.clip(self.best, low, high)
        if not (point > 0).any():
            point = (low + high) / 200.0
        value, gradient = self.evaluate(point)
        self._note(point, value)
        reference, scale = value, float(np.abs(gradient * span).max()) or 1.0
        master: Any = highspy.Highs()
        for option, setting in (("output_flag", False), ("presolve", "off"), ("threads", 1)):
            master.setOptionValue(option, setting)
        count = len(span)
        master.addVars(count, np.zeros(count), np.ones(count))
        master.addVar(-1e6, 1e6)
        master.changeColCost(count, -1.0)
        index = np.arange(count + 1, dtype=np.int32)
        for _ in range(_CUTS):
            offset = (value - reference + float(gradient @ (low - point))) / scale
            master.addRow(-highspy.kHighsInf, offset, count + 1, index, np.append(-gradient * span / scale, 1.0))
            master.run()
            solution = master.getSolution().col_value
            if len(solution) <= count:
                return
            promised = solution[count] * scale + reference
            if promised - self.value <= 1e-7 * scale:
                return
            point = low + np.clip(np.array(solution[:count]), 0.0, 1.0) * span
            value, gradient = self.evaluate(point)
            self._note(point, value)

    def _note(self, point: FloatArray, value: float) -> None:
        if value > self.value:
            self.best, self.value = point, value
