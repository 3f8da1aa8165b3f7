"""fit, DensePredictor: the latency of matrix products on devices whose kernels were measured on a grid of shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ...errors import InvalidInput, NotMeasured
from ..gemm import Gemms, MeasuredGemms, Prediction
from .conformal import Difficulty, quantile, scores, shape_folds
from .features import groups
from .format_model import FormatModel
from .lattice import Axes
from .surface import Parts, blend, grid_points, parts

FloatArray = NDArray[np.float64]

FOLDS = 4
#: Of every so many grid lines between the ends one is held out to see how good the surface is between lines.
STRIDE = 6
#: Shares of boosting that are tried.
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
#: Fewer weight shapes than this are no dense table.
FEWEST_SHAPES = 40
#: (rows of one device and format, coverage, seed, monotone) -> model.
Fitter = Callable[[MeasuredGemms, float, int, bool], FormatModel]


@dataclass(frozen=True)
class DensePredictor:
    """Latency of matrix products; a ``LatencyModel``.

    Attributes:
        models: (device, format) -> its fitted surface.
        refused: (device, format) -> why its rows were not enough.
        coverage: of the intervals.
    """

    models: Mapping[tuple[str, str], FormatModel]
    refused: Mapping[tuple[str, str], str]
    coverage: float

    def predict(self, gemms: Gemms) -> Prediction:
        """The times.

        Raises:
            InvalidInput: a size below 1.
            NotMeasured: no model of a device and format, or a size outside what was measured.
        """
        if len(gemms) and min(gemms.m.min(), gemms.n.min(), gemms.k.min()) < 1:
            raise InvalidInput("a product has m, n or k below 1: give sizes of at least 1")
        logs, half = np.empty(len(gemms)), np.empty(len(gemms))
        for key, rows in groups(gemms).items():
            logs[rows], half[rows] = self._model(key).predict(gemms.take(rows))
        return Prediction(np.exp(logs), np.exp(logs - half), np.exp(logs + half), self.coverage)

    def _model(self, key: tuple[str, str]) -> FormatModel:
        if key in self.models:
            return self.models[key]
        device, format_ = key
        known = sorted(kind for name, kind in self.models if name == device)
        why = self.refused.get(key, "no measurements")
        instead = f"use {', '.join(known)}" if known else "choose a measured device"
        raise NotMeasured(f"no latency model of {format_} on {device} ({why}): {instead}, or measure it first")


def fit(
    rows: MeasuredGemms,
    coverage: float = 0.9,
    seed: int = 0,
    monotone: bool = True,
    fitter: Fitter | None = None,
) -> DensePredictor:
    """Fit every device and format that occurs.

    Args:
        rows: measurements on many weight shapes; several devices and formats may be mixed.
        coverage: of the intervals, in (0, 1).
        seed: of the folds and the boosting.
        monotone: whether the predicted time must not fall when m, n or k grow. Some tables fall (a row more may meet a
            slower kernel); ``False`` follows them and is closer to what was measured there.
        fitter: fits one device and format; ``None`` is ``fit_format``.

    Returns:
        The predictor; formats with too few shapes are named in ``refused``.

    Raises:
        InvalidInput: no rows, times that are not positive, or coverage outside (0, 1).
        NotMeasured: no device and format has enough shapes.
    """
    if not 0 < coverage < 1:
        raise InvalidInput(f"coverage is {coverage}: give a share between 0 and 1, such as 0.9")
    if not len(rows):
        raise InvalidInput("no measurements: give a table with rows")
    if not (np.isfinite(rows.ms) & (rows.ms > 0)).all():
        raise InvalidInput("a measured time is not a positive number: leave such rows out")
    models, refused = {}, {}
    for key, at in groups(rows).items():
        part = rows.take(at)
        shapes = weight_shapes(part)
        if shapes < FEWEST_SHAPES:
            refused[key] = f"{shapes} weight shapes were measured, a dense table has at least {FEWEST_SHAPES}"
            continue
        models[key] = (fitter or fit_format)(part, coverage, seed, monotone)
    if not models:
        raise NotMeasured(f"no dense table: {'; '.join(f'{key[1]} on {key[0]}: {why}' for key, why in refused.items())}")
    return DensePredictor(models, refused, coverage)


def fit_format(rows: MeasuredGemms, coverage: float = 0.9, seed: int = 0, monotone: bool = True) -> FormatModel:
    """Fit one format on one device: blend and intervals from what was held out, the surface from all rows."""
    logs = np.log(rows.ms)
    axes = Axes.of(rows.m, rows.n, rows.k)
    fold = shape_folds(rows, FOLDS, seed)
    held = HeldOut.of(rows, axes, fold, seed)
    weight = held.best_weight(logs)
    errors = held.surface(weight, monotone) - logs
    difficulty = Difficulty(rows, errors, seed)
    inside = quantile(scores(rows, errors, fold, seed), coverage)
    outside = quantile(between_lines(rows, axes, weight, monotone, difficulty, seed), coverage)
    finest = axes.finer()
    device, format_ = str(rows.device[0]), str(rows.format[0])
    return FormatModel(
        device=device,
        format=format_,
        axes=finest,
        log_ms=parts(rows, finest, seed).surface(weight, monotone),
        spread=difficulty(grid_points(finest, device, format_)).reshape(finest.shape),
        lines=axes,
        inside=inside,
        outside=max(inside, outside),
        multiple=int(np.gcd.reduce(np.concatenate([rows.n, rows.k, [16]]))),
        boosting=weight,
        coverage=coverage,
        rows=len(rows),
        shapes=weight_shapes(rows),
        monotone=monotone,
    )


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


def between_lines(
    rows: MeasuredGemms, axes: Axes, weight: float, monotone: bool, difficulty: Difficulty, seed: int
) -> FloatArray:
    """Conformal scores of rows on grid lines that were held out whole: what lies between lines, at twice their distance."""
    found = []
    for offset in (STRIDE // 3, STRIDE - 1):
        test = np.zeros(len(rows), dtype=bool)
        for side, axis in zip((rows.m, rows.n, rows.k), (axes.m, axes.n, axes.k), strict=True):
            test |= np.isin(side, axis[1:-1][offset - 1 :: STRIDE])
        if not test.any() or test.all():
            continue
        seen, unseen = rows.take(~test), rows.take(test)
        grid = Axes.of(seen.m, seen.n, seen.k).finer()
        log_ms = grid.to(unseen) @ parts(seen, grid, seed).surface(weight, monotone).ravel()
        found.append(np.abs(log_ms - np.log(unseen.ms)) / difficulty(unseen))
    return np.concatenate(found) if found else np.empty(0)


def weight_shapes(rows: Gemms) -> int:
    """How many weight shapes (n, k) occur."""
    return int(np.unique(np.stack([rows.n, rows.k]), axis=1).shape[1])
