r"""A monotone map from predicted to measured latent values: what an additive model cannot bend to, saturation included.

Isotonic regression by pooling adjacent violators (Barlow et al. 1972, Statistical inference under order restrictions)
gives blocks of constant value. The map runs straight through the centres of the blocks, so it is strictly rising and
keeps every order; outside of the outer centres it has slope 1. A monotone map never moves the optimum of what it maps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

FloatArray = NDArray[np.float64]
_RISE = 1e-6  # least slope, so that no order is lost


@dataclass(frozen=True, eq=False)
class MonotoneMap:
    """A strictly rising, piecewise linear map.

    Attributes:
        knots: where it is known, rising: [knots].
        values: there, rising: [knots]. No knots: the identity.
    """

    knots: FloatArray
    values: FloatArray

    @staticmethod
    def identity() -> MonotoneMap:
        """The map that changes nothing."""
        return MonotoneMap(np.zeros(0), np.zeros(0))

    @staticmethod
    def fit(predicted: FloatArray, measured: FloatArray, least: int = 5) -> MonotoneMap:
        """Fit to pairs.

        Args:
            predicted: [n].
            measured: [n].
            least: points of a block; smaller neighbours are pooled, so that the map does not follow the noise.

        Returns:
            The map; with fewer than two blocks a shift.
        """
        if not len(predicted):
            return MonotoneMap.identity()
        order = np.argsort(predicted, kind="stable")
        x, y = predicted[order], measured[order]
        steps = isotonic_regression(y).x
        starts = [0, *(np.flatnonzero(np.diff(steps) > 0) + 1).tolist(), len(x)]
        cuts = [0]
        for start in starts[1:]:
            if start - cuts[-1] >= least:
                cuts.append(start)
        cuts = [*cuts[:-1], len(x)] if len(cuts) > 1 else [0, len(x)]
        blocks = [slice(cuts[i], cuts[i + 1]) for i in range(len(cuts) - 1)]
        knots = np.array([x[block].mean() for block in blocks])
        values = np.array([y[block].mean() for block in blocks])
        rising = np.concatenate([[True], np.diff(knots) > 0])
        return MonotoneMap(knots[rising], np.maximum.accumulate(values[rising]))

    def __call__(self, predicted: FloatArray) -> FloatArray:
        """Mapped values, same shape."""
        if not len(self.knots):
            return predicted
        inside = np.interp(predicted, self.knots, self.values)
        beyond = np.minimum(predicted - self.knots[0], 0.0) + np.maximum(predicted - self.knots[-1], 0.0)
        mapped: FloatArray = inside + beyond + _RISE * (np.clip(predicted, self.knots[0], self.knots[-1]))
        return mapped


def left_out_residuals(predicted: FloatArray, measured: FloatArray, folds: int = 10) -> FloatArray:
    """Measured less mapped, every pair left out of the fit of its map, in folds of every so manyth pair: [n]."""
    residuals = np.empty(len(predicted))
    fold = np.arange(len(predicted)) % folds
    for left in range(min(folds, len(predicted))):
        out = fold == left
        residuals[out] = measured[out] - MonotoneMap.fit(predicted[~out], measured[~out])(predicted[out])
    return residuals
