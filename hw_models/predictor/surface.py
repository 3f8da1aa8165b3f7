r"""The time of one format on one device as a surface over (m, n, k).

Where a grid point was measured, its value is the measurement. Elsewhere it is

.. math:: \log t = \log t_{law} + \hat R(n, k; m) + w\, f(x)

with the law of the device (``hw_models/law.py``), R what it leaves at neighbouring weight shapes (``kriging``) and f
gradient boosting (Friedman 2001; histograms of the features, absolute error) of what both leave. The boosting is
taught with the R of each shape that the OTHER shapes give, so it learns what that misses and not that a table's own
rows fit. ``isotonic.rising`` then makes the surface rise in n and k, and in m but for ``falls``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..gemm import Gemms, MeasuredGemms
from .falls import stretches
from .features import features
from .isotonic import rising
from .lattice import Axes
from .trend import Trend

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingRegressor

FloatArray = NDArray[np.float64]

BOOSTING = {
    "loss": "absolute_error",
    "max_iter": 120,
    "learning_rate": 0.1,
    "max_leaf_nodes": 31,
    "min_samples_leaf": 20,
    "l2_regularization": 1.0,
    "early_stopping": False,
}


@dataclass(frozen=True)
class Parts:
    """What a surface is put together from, each an array [M, N, K] of log ms.

    Attributes:
        axes: of the grid.
        measured: NaN where nothing was measured.
        trend: law and kriged remainder.
        boosted: what boosting adds to them.
    """

    axes: Axes
    measured: FloatArray
    trend: FloatArray
    boosted: FloatArray

    def surface(self, share: float, order: Order) -> FloatArray:
        """Log ms on the grid with a share of the boosting where nothing was measured."""
        guessed = self.trend + share * self.boosted
        return order.applied(np.where(np.isnan(self.measured), guessed, self.measured), self.axes)


@dataclass(frozen=True)
class Order:
    """Along which sizes a surface rises.

    Attributes:
        rises: along n and k, and along m but for the falls; else nowhere.
        falls: pairs of sizes of m between which it may fall, float64 array [falls, 2].
    """

    rises: bool
    falls: FloatArray

    def applied(self, values: FloatArray, axes: Axes) -> FloatArray:
        """The nearest values on a grid that rise as promised."""
        return rising(values, stretches=stretches(axes.m, self.falls)) if self.rises else values


def boosting(rows: Gemms, law: FloatArray, remainder: FloatArray, left: FloatArray, seed: int) -> Boosting:
    """Fit boosting to what law and remainder leave [rows]."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(**BOOSTING, random_state=seed)
    return Boosting(model.fit(features(rows, law, remainder), left))


@dataclass(frozen=True)
class Boosting:
    """A fitted regression of the features."""

    model: HistGradientBoostingRegressor

    def __call__(self, gemms: Gemms, law: FloatArray, remainder: FloatArray) -> FloatArray:
        """What it adds to law and remainder, float64 array [rows]."""
        return np.asarray(self.model.predict(features(gemms, law, remainder)))


def parts(rows: MeasuredGemms, axes: Axes, trend: Trend, boosted: Boosting) -> Parts:
    """Lay everything on a grid.

    Args:
        rows: the measurements; those on none of the grid points are left out.
        axes: of the grid.
        trend: fitted to the rows.
        boosted: fitted to what the trend leaves.
    """
    points = grid_points(axes, str(rows.device[0]), str(rows.format[0]))
    law, remainder = trend.law(points), trend.kriging.at(points)
    found = boosted(points, law, remainder)
    shape = axes.shape
    measured = on_grid(axes, rows, np.log(rows.ms))
    return Parts(axes, measured, (law + remainder).reshape(shape), found.reshape(shape))


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
