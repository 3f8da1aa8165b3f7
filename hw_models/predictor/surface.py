r"""The time of one format on one device as a surface over (m, n, k).

Where a grid point was measured, its value is the measurement. Elsewhere it is

.. math:: \log t = \log(t_{roofline} + t_0) + w\, f(x) + (1 - w)\, g(m, n, k)

with f gradient boosting (histograms of the features, ``features``) and g linear interpolation between the measured
neighbours along n and along k (along m where there are none), both of the logarithm of measured over roofline.
``isotonic.rising`` then makes the whole surface rise in m, n and k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..gemm import Gemms, MeasuredGemms
from .features import features, log_base
from .isotonic import rising
from .lattice import Axes

FloatArray = NDArray[np.float64]

BOOSTING = {
    "max_iter": 400,
    "learning_rate": 0.08,
    "max_leaf_nodes": 47,
    "min_samples_leaf": 10,
    "l2_regularization": 1.0,
    "early_stopping": False,
}


@dataclass(frozen=True)
class Parts:
    """What a surface is put together from, each an array [M, N, K] of log ms.

    Attributes:
        axes: of the grid.
        measured: NaN where nothing was measured.
        boosted: base plus boosted residual.
        interpolated: base plus interpolated residual; NaN where no neighbour was measured.
    """

    axes: Axes
    measured: FloatArray
    boosted: FloatArray
    interpolated: FloatArray

    def surface(self, weight: float, monotone: bool = True) -> FloatArray:
        """Log ms on the grid with a share ``weight`` of boosting where nothing was measured."""
        guessed = blend(self.boosted, self.interpolated, weight)
        values = np.where(np.isnan(self.measured), guessed, self.measured)
        return rising(values) if monotone else values


def blend(boosted: FloatArray, interpolated: FloatArray, weight: float) -> FloatArray:
    """Both, weighted; boosting alone where nothing could be interpolated."""
    return np.where(np.isnan(interpolated), boosted, weight * boosted + (1 - weight) * interpolated)


def parts(rows: MeasuredGemms, axes: Axes, seed: int = 0) -> Parts:
    """Fit boosting and interpolation to measurements of one format on one device.

    Args:
        rows: the measurements.
        axes: of the grid; rows that lie on none of its points teach only the boosting.
        seed: of the boosting.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    base, logs = log_base(rows), np.log(rows.ms)
    boosting = HistGradientBoostingRegressor(**BOOSTING, random_state=seed).fit(features(rows), logs - base)
    points = grid_points(axes, str(rows.device[0]), str(rows.format[0]))
    floor = log_base(points).reshape(axes.shape)
    boosted = floor + boosting.predict(features(points)).reshape(axes.shape)
    measured = on_grid(axes, rows, logs)
    return Parts(axes, measured, boosted, floor + between(measured - floor, axes))


def grid_points(axes: Axes, device: str, format_: str) -> Gemms:
    """The products of a grid, in C order."""
    m, n, k = axes.points()
    return Gemms(np.full(len(m), device), np.full(len(m), format_), m, n, k)


def on_grid(axes: Axes, rows: Gemms, values: FloatArray) -> FloatArray:
    """Values of products laid on the grid, the mean where one occurs several times: [M, N, K], NaN where none is."""
    known = axes.on_grid(rows.m, rows.n, rows.k)
    at = tuple(
        np.searchsorted(axis, side[known])
        for axis, side in zip((axes.m, axes.n, axes.k), (rows.m, rows.n, rows.k), strict=True)
    )
    total, count = np.zeros(axes.shape), np.zeros(axes.shape)
    np.add.at(total, at, values[known])
    np.add.at(count, at, 1.0)
    return np.where(count > 0, total / np.where(count > 0, count, 1.0), np.nan)


def between(residual: FloatArray, axes: Axes) -> FloatArray:
    """Each grid point from its measured neighbours along n and along k, never from its own measurement.

    Linear in the logarithm of the size, constant beyond the last neighbour, the mean of both directions; along m where
    neither has a neighbour. Points that have none at all are filled from those that do, in two more passes; NaN what
    still has none.
    """
    found = _neighbours(residual, axes)
    for _ in range(2):
        missing = np.isnan(found)
        if not missing.any():
            break
        found = np.where(missing, _neighbours(np.where(np.isnan(residual), found, residual), axes), found)
    return found


def _neighbours(values: FloatArray, axes: Axes) -> FloatArray:
    along_n = np.moveaxis(_line(np.moveaxis(values, 1, -1), np.log(axes.n)), -1, 1)
    along_k = _line(values, np.log(axes.k))
    both = np.where(np.isnan(along_n), along_k, np.where(np.isnan(along_k), along_n, (along_n + along_k) / 2))
    along_m = np.moveaxis(_line(np.moveaxis(values, 0, -1), np.log(axes.m)), -1, 0)
    return np.where(np.isnan(both), along_m, both)


def _line(values: FloatArray, position: FloatArray) -> FloatArray:
    """Interpolation along the last axis from the nearest numbers on both sides, the point itself left out."""
    length = values.shape[-1]
    known = ~np.isnan(values)
    none_below = np.full((*values.shape[:-1], 1), -1)
    below = np.maximum.accumulate(np.where(known, np.arange(length), -1), axis=-1)
    below = np.concatenate([none_below, below[..., :-1]], axis=-1)
    above = np.flip(np.minimum.accumulate(np.flip(np.where(known, np.arange(length), length), -1), axis=-1), -1)
    above = np.concatenate([above[..., 1:], np.full_like(none_below, length)], axis=-1)
    low, high = np.maximum(below, 0), np.minimum(above, length - 1)
    first = np.where(below >= 0, np.take_along_axis(values, low, -1), np.nan)
    last = np.where(above < length, np.take_along_axis(values, high, -1), np.nan)
    gap = position[high] - position[low]
    share = (position - position[low]) / np.where(gap > 0, gap, 1.0)
    return np.where(np.isnan(first), last, np.where(np.isnan(last), first, first + share * (last - first)))
