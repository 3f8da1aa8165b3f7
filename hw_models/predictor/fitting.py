"""fit_format: the surface of one format on one device, with what was learned from holding parts of its table out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..gemm import Gemms, MeasuredGemms
from .conformal import Difficulty, quantile, scores, shape_folds
from .format_model import FormatModel
from .held_out import HeldLines, HeldOut
from .lattice import Axes
from .surface import Parts, grid_points, parts

#: Parts of the weight shapes; each is held out once.
FOLDS = 10


def fit_format(rows: MeasuredGemms, coverage: float = 0.9, seed: int = 0, monotone: bool = True) -> FormatModel:
    """Fit one format on one device: ``Prepared.of(rows, seed).model(coverage, monotone)``."""
    return Prepared.of(rows, seed).model(coverage, monotone)


@dataclass(frozen=True)
class Prepared:
    """All regressions of one format on one device; models of any coverage, monotone or not, follow from it.

    Attributes:
        rows: the measurements.
        seed: of folds and boosting.
        fold: of each row.
        held: parts fitted without each fold of weight shapes.
        lines: parts fitted without some grid lines.
        whole: parts fitted with all rows, on the finer grid.
    """

    rows: MeasuredGemms
    seed: int
    fold: NDArray[np.int64]
    held: HeldOut
    lines: HeldLines
    whole: Parts

    @staticmethod
    def of(rows: MeasuredGemms, seed: int = 0) -> Prepared:
        """Fit everything."""
        axes = Axes.of(rows.m, rows.n, rows.k)
        fold = shape_folds(rows, FOLDS, seed)
        held, lines = HeldOut.of(rows, axes, fold, seed), HeldLines.of(rows, axes, seed)
        return Prepared(rows, seed, fold, held, lines, parts(rows, axes.finer(), seed))

    def model(self, coverage: float = 0.9, monotone: bool = True) -> FormatModel:
        """Blend and intervals from what was held out, the surface from all rows."""
        rows, logs = self.rows, np.log(self.rows.ms)
        weight = self.held.best_weight(logs)
        errors = self.held.surface(weight, monotone) - logs
        difficulty = Difficulty(rows, errors, self.seed)
        inside = quantile(scores(rows, errors, self.fold, self.seed), coverage)
        outside = quantile(self.lines.scores(weight, monotone, difficulty), coverage)
        device, format_, grid = str(rows.device[0]), str(rows.format[0]), self.whole.axes
        return FormatModel(
            device=device,
            format=format_,
            axes=grid,
            log_ms=self.whole.surface(weight, monotone),
            spread=difficulty(grid_points(grid, device, format_)).reshape(grid.shape),
            lines=Axes.of(rows.m, rows.n, rows.k),
            inside=inside,
            outside=max(inside, outside),
            multiple=int(np.gcd.reduce(np.concatenate([rows.n, rows.k, [16]]))),
            boosting=weight,
            coverage=coverage,
            rows=len(rows),
            shapes=weight_shapes(rows),
            monotone=monotone,
        )


def weight_shapes(rows: Gemms) -> int:
    """How many weight shapes (n, k) occur."""
    return int(np.unique(np.stack([rows.n, rows.k]), axis=1).shape[1])
