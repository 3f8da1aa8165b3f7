"""What surfaces say of products they were fitted without: held out by weight shape, and by whole grid line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..gemm import MeasuredGemms
from .conformal import Difficulty
from .lattice import Axes
from .surface import Boosting, Order, Parts, boosting, on_grid, parts
from .trend import Trend

FloatArray = NDArray[np.float64]

#: Of every so many grid lines between the ends one is held out to see how good the surface is between lines.
STRIDE = 5
#: Shares of the boosting that are tried.
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class HeldOut:
    """What is said of each row without its weight shape.

    The trend is what all OTHER shapes say (closed, see ``kriging``), the boosting one of those that did not see the
    fold of the shape.

    Attributes:
        rows: the measurements.
        fold: of each row.
        trend: log ms by law and other shapes [rows].
        boosted: what boosting adds [rows].
        whole: all parts on the grid of the table.
    """

    rows: MeasuredGemms
    fold: NDArray[np.int64]
    trend: FloatArray
    boosted: FloatArray
    whole: Parts

    @staticmethod
    def of(rows: MeasuredGemms, trend: Trend, boosted: Boosting, fold: NDArray[np.int64], seed: int) -> HeldOut:
        """Fit the boosting of every fold."""
        law, remainder = trend.law(rows), trend.kriging.without_own(rows)
        left = np.log(rows.ms) - law - remainder
        added = np.empty(len(rows))
        for held in np.unique(fold):
            test, rest = fold == held, fold != held
            model = boosting(rows.take(rest), law[rest], remainder[rest], left[rest], seed)
            added[test] = model(rows.take(test), law[test], remainder[test])
        axes = Axes.of(rows.m, rows.n, rows.k)
        return HeldOut(rows, fold, law + remainder, added, parts(rows, axes, trend, boosted))

    def best_share(self) -> float:
        """The share of boosting with the least mean absolute percentage error."""
        logs = np.log(self.rows.ms)
        return min(SHARES, key=lambda share: float(np.abs(np.expm1(self.log_ms(share) - logs)).mean()))

    def log_ms(self, share: float) -> FloatArray:
        """Log ms before it is made to rise [rows]."""
        return self.trend + share * self.boosted

    def surface(self, share: float, order: Order) -> FloatArray:
        """Log ms of the finished surface of the other folds [rows]."""
        axes, guessed = self.whole.axes, self.log_ms(share)
        if not order.rises:
            return guessed
        laid, found = self.whole.surface(share, Order(False, order.falls)), np.empty(len(guessed))
        for held in np.unique(self.fold):
            test = self.fold == held
            unseen = self.rows.take(test)
            instead = on_grid(axes, unseen, guessed[test])
            risen = order.applied(np.where(np.isnan(instead), laid, instead), axes)
            found[test] = axes.to(unseen) @ risen.ravel()
        return found


@dataclass(frozen=True)
class HeldLines:
    """Rows on grid lines that were held out whole, and the parts fitted without them.

    Attributes:
        rows: the held-out rows; ``None`` where the table has too few lines for it.
        fitted: the parts of the others.
    """

    rows: MeasuredGemms | None
    fitted: Parts | None

    @staticmethod
    def of(rows: MeasuredGemms, axes: Axes, trend: Trend, seed: int) -> HeldLines:
        """Hold out every ``STRIDE``-th line of m, n and k, never the first or last."""
        test = np.zeros(len(rows), dtype=bool)
        for side, axis in zip((rows.m, rows.n, rows.k), (axes.m, axes.n, axes.k), strict=True):
            test |= np.isin(side, axis[1:-1][STRIDE // 2 :: STRIDE])
        if not test.any() or test.all():
            return HeldLines(None, None)
        seen = rows.take(~test)
        coarse = Axes.of(seen.m, seen.n, seen.k)
        again, boosted = fitted(seen, coarse, seed, trend.theta)
        return HeldLines(rows.take(test), parts(seen, coarse.finer(), again, boosted))

    def scores(self, share: float, order: Order, difficulty: Difficulty) -> FloatArray:
        """Conformal scores between lines, at twice their usual distance (so rather too wide than too narrow)."""
        if self.rows is None or self.fitted is None:
            return np.empty(0)
        log_ms = self.fitted.axes.to(self.rows) @ self.fitted.surface(share, order).ravel()
        return np.asarray(np.abs(log_ms - np.log(self.rows.ms)) / difficulty(self.rows))


def fitted(rows: MeasuredGemms, axes: Axes, seed: int, theta: FloatArray | None = None) -> tuple[Trend, Boosting]:
    """Trend and boosting of all rows; the law as given, or fitted too."""
    trend = Trend.of(rows, axes.m, seed, theta)
    law, remainder = trend.law(rows), trend.kriging.without_own(rows)
    return trend, boosting(rows, law, remainder, np.log(rows.ms) - law - remainder, seed)
