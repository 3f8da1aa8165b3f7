"""fit_format: the surface of one format on one device, with what was learned from holding parts of its table out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..gemm import Gemms, MeasuredGemms
from .conformal import Difficulty, quantile, scores, shape_folds
from .falls import falls
from .format_model import FormatModel
from .held_out import HeldLines, HeldOut, fitted
from .lattice import Axes
from .surface import Order, Parts, grid_points, parts

FloatArray = NDArray[np.float64]

#: Parts of the weight shapes; each is held out once.
FOLDS = 3


def fit_format(
    rows: MeasuredGemms, coverage: float = 0.9, seed: int = 0, monotone: bool = True, strict: bool = False
) -> FormatModel:
    """Fit one format on one device: ``Prepared.of(rows, seed).model(coverage, monotone, strict)``.

    On one thread: the loops are too short to share, and on a busy machine threads that wait for each other spin.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        return Prepared.of(rows, seed).model(coverage, monotone, strict)


@dataclass(frozen=True)
class Prepared:
    """All regressions of one format on one device; models of any coverage, monotone or not, follow from it.

    Attributes:
        rows: the measurements.
        seed: of folds and boosting.
        held: what is said of each row without its weight shape.
        lines: parts fitted without some grid lines.
        whole: parts fitted with all rows, on the finer grid.
        falls: pairs of sizes of m between which measured times fall, float64 array [falls, 2].
    """

    rows: MeasuredGemms
    seed: int
    held: HeldOut
    lines: HeldLines
    whole: Parts
    falls: FloatArray

    @staticmethod
    def of(rows: MeasuredGemms, seed: int = 0) -> Prepared:
        """Fit everything."""
        axes = Axes.of(rows.m, rows.n, rows.k)
        trend, boosted = fitted(rows, axes, seed)
        held = HeldOut.of(rows, trend, boosted, shape_folds(rows, FOLDS, seed), seed)
        lines = HeldLines.of(rows, axes, trend, seed)
        whole = parts(rows, axes.finer(), trend, boosted)
        return Prepared(rows, seed, held, lines, whole, falls(trend, str(rows.device[0]), str(rows.format[0])))

    def model(self, coverage: float = 0.9, monotone: bool = True, strict: bool = False) -> FormatModel:
        """Blend and intervals from what was held out, the surface from all rows."""
        rows = self.rows
        order = Order(monotone, self.falls if monotone and not strict else np.empty((0, 2)))
        share = self.held.best_share()
        errors = self.held.surface(share, order) - np.log(rows.ms)
        difficulty = Difficulty(rows, errors, self.seed)
        inside = quantile(scores(rows, errors, self.held.fold, self.seed), coverage)
        outside = quantile(self.lines.scores(share, order, difficulty), coverage)
        device, format_, grid = str(rows.device[0]), str(rows.format[0]), self.whole.axes
        return FormatModel(
            device=device,
            format=format_,
            axes=grid,
            log_ms=self.whole.surface(share, order),
            spread=difficulty(grid_points(grid, device, format_)).reshape(grid.shape),
            lines=Axes.of(rows.m, rows.n, rows.k),
            falls=order.falls,
            inside=inside,
            outside=max(inside, outside),
            multiple=int(np.gcd.reduce(np.concatenate([rows.n, rows.k, [16]]))),
            boosting=share,
            coverage=coverage,
            rows=len(rows),
            shapes=weight_shapes(rows),
            monotone=monotone,
        )


def weight_shapes(rows: Gemms) -> int:
    """How many weight shapes (n, k) occur."""
    return int(np.unique(np.stack([rows.n, rows.k]), axis=1).shape[1])
