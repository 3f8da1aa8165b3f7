r"""Intervals that cover what they promise: conformal prediction over held-out weight shapes.

With e the error of the logarithm of a product whose weight shape (n, k) was held out, and u(x) the size of error that
is expected there (itself fitted without that shape), the scores are s = |e| / u(x); the interval of a new product is

.. math:: \left[t\,e^{-q u(x)},\; t\,e^{q u(x)}\right], \qquad
          q = s_{(\lceil (N + 1)\,\mathrm{coverage} \rceil)}

the cross-validation form of the normalised (locally weighted) conformal interval: Lei, G'Sell, Rinaldo, Tibshirani,
Wasserman 2018, section 5.2; Barber, Candès, Ramdas, Tibshirani 2021. Exchangeable are the shapes, not the rows: a fold
holds all rows of its shapes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..gemm import Gemms, MeasuredGemms
from .features import bounds_ms

FloatArray = NDArray[np.float64]

#: Added to an error before it is fitted: the deviance of the gamma distribution takes no zeros.
FLOOR = 1e-4
_DIFFICULTY = {
    "loss": "gamma",
    "max_iter": 80,
    "learning_rate": 0.08,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 60,
    "l2_regularization": 5.0,
    "early_stopping": False,
}


def shape_folds(rows: Gemms, folds: int, seed: int) -> NDArray[np.int64]:
    """A fold for every row, all rows of a weight shape (n, k) in one: int64 array [rows]."""
    _, shape = np.unique(np.stack([rows.n, rows.k]), axis=1, return_inverse=True)
    count = int(shape.max()) + 1
    dealt = np.arange(count) % folds
    return np.random.default_rng(seed).permutation(dealt)[shape.ravel()]


def quantile(scores: FloatArray, coverage: float) -> float:
    """The conformal quantile: the ceil((N + 1) coverage)-th smallest score, infinite where N is too small for it."""
    rank = math.ceil((len(scores) + 1) * coverage)
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else math.inf


class Difficulty:
    """The size of error to expect, fitted on held-out errors.

    Its mean by boosting with the deviance of the gamma distribution (which weighs relative, not absolute, differences),
    on the sizes and the roofline.
    """

    def __init__(self, rows: Gemms, errors: FloatArray, seed: int) -> None:
        from sklearn.ensemble import HistGradientBoostingRegressor

        target = np.abs(errors) + FLOOR
        self._boosting = HistGradientBoostingRegressor(**_DIFFICULTY, random_state=seed).fit(_inputs(rows), target)

    def __call__(self, gemms: Gemms) -> FloatArray:
        """Expected |error| of the logarithm, > 0: float64 array [rows]."""
        return np.asarray(self._boosting.predict(_inputs(gemms)))


def scores(rows: MeasuredGemms, errors: FloatArray, fold: NDArray[np.int64], seed: int) -> FloatArray:
    """|e| / u(x) with u fitted without the fold of the row: float64 array [rows]."""
    found = np.empty(len(rows))
    for held in np.unique(fold):
        test = fold == held
        found[test] = np.abs(errors[test]) / Difficulty(rows.take(~test), errors[~test], seed)(rows.take(test))
    return found


def _inputs(gemms: Gemms) -> FloatArray:
    compute, memory = bounds_ms(gemms)
    sides = [np.log(side.astype(np.float64)) for side in (gemms.m, gemms.n, gemms.k)]
    aligned = (gemms.m % 16 == 0).astype(np.float64)
    return np.stack([*sides, np.log(compute), np.log(memory), np.log(compute / memory), aligned], axis=1)
