"""What surfaces say of products they were fitted without: held out by weight shape, and by whole grid line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..gemm import MeasuredGemms
from .conformal import Difficulty
from .lattice import Axes
from .surface import Parts, blend, parts

FloatArray = NDArray[np.float64]

#: Of every so many grid lines between the ends one is held out to see how good the surface is between lines.
STRIDE = 6
#: Shares of boosting that are tried.
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class HeldOut:
    """What is said of each row by parts that were fitted without its weight shape.

    Attributes:
        folds: the parts fitted without each fold.
        at: per fold, its rows and the sparse interpolation to them.
        boosted: log ms by boosting [rows].
        interpolated: log ms by interpolation [rows], NaN where there is none.
    """

    folds: tuple[Parts, ...]
    at: tuple[tuple[NDArray[np.bool_], sparse.csr_array], ...]
    boosted: FloatArray
    interpolated: FloatArray

    @staticmethod
    def of(rows: MeasuredGemms, axes: Axes, fold: NDArray[np.int64], seed: int) -> HeldOut:
        """Fit all folds."""
        fitted, at = [], []
        boosted, interpolated = np.empty(len(rows)), np.empty(len(rows))
        for held in np.unique(fold):
            test = fold == held
            found, to_rows = parts(rows.take(~test), axes, seed), axes.to(rows.take(test))
            boosted[test], interpolated[test] = to_rows @ found.boosted.ravel(), to_rows @ found.interpolated.ravel()
            fitted.append(found)
            at.append((test, to_rows))
        return HeldOut(tuple(fitted), tuple(at), boosted, interpolated)

    def best_weight(self, logs: FloatArray) -> float:
        """The share of boosting with the least mean absolute percentage error."""

        def error(weight: float) -> float:
            return float(np.abs(np.expm1(blend(self.boosted, self.interpolated, weight) - logs)).mean())

        return min(WEIGHTS, key=error)

    def surface(self, weight: float, monotone: bool) -> FloatArray:
        """Log ms of the finished surface of the other folds [rows]."""
        found = np.empty(len(self.boosted))
        for fitted, (test, to_rows) in zip(self.folds, self.at, strict=True):
            found[test] = to_rows @ fitted.surface(weight, monotone).ravel()
        return found


@dataclass(frozen=True)
class HeldLines:
    """Rows on grid lines that were held out whole, and the parts fitted without them.

    Attributes:
        rows: the held-out rows, one entry for every choice of lines.
        fitted: the parts of each.
    """

    rows: tuple[MeasuredGemms, ...]
    fitted: tuple[Parts, ...]

    @staticmethod
    def of(rows: MeasuredGemms, axes: Axes, seed: int) -> HeldLines:
        """Fit two choices of lines: every ``STRIDE``-th of m, n and k, never the first or last."""
        unseen, fitted = [], []
        for offset in (STRIDE // 3, STRIDE - 1):
            test = np.zeros(len(rows), dtype=bool)
            for side, axis in zip((rows.m, rows.n, rows.k), (axes.m, axes.n, axes.k), strict=True):
                test |= np.isin(side, axis[1:-1][offset - 1 :: STRIDE])
            if not test.any() or test.all():
                continue
            seen = rows.take(~test)
            unseen.append(rows.take(test))
            fitted.append(parts(seen, Axes.of(seen.m, seen.n, seen.k).finer(), seed))
        return HeldLines(tuple(unseen), tuple(fitted))

    def scores(self, weight: float, monotone: bool, difficulty: Difficulty) -> FloatArray:
        """Conformal scores between lines, at twice their usual distance (so rather too wide than too narrow)."""
        found = [np.empty(0)]
        for rows, fitted in zip(self.rows, self.fitted, strict=True):
            log_ms = fitted.axes.to(rows) @ fitted.surface(weight, monotone).ravel()
            found.append(np.abs(log_ms - np.log(rows.ms)) / difficulty(rows))
        return np.concatenate(found)
