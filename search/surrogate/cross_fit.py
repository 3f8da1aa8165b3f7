"""Predictions of every point by a fit that did not see it: what intervals and the choice of a model rest on.

The closed-form leave-one-out residuals of a fit hold the estimate that its features are taken at, and so look better
than they are. Here the points are divided into folds and everything but the scales is fitted again without each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from .pairwise import chosen_pairs
from .table import FREEDOM, TableFit, fit_table

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
FOLDS = 8


@dataclass(frozen=True, eq=False)
class CrossFit:
    """Fits without each fold.

    Attributes:
        fits: one for each fold.
        fold: of every point: [n].
        errors: standard errors of points that were estimated: [n].
        predicted: latent values of the points, each by the fit that did not see it: [n].
        deviation: standard deviation of what is measured or estimated there around those predictions: [n].
        residuals: measured less predicted: [n].
    """

    fits: tuple[TableFit, ...]
    fold: IntArray
    errors: FloatArray
    predicted: FloatArray
    deviation: FloatArray
    residuals: FloatArray

    def density(self, weights: FloatArray) -> float:
        """Mean log predictive density of the points, as Student t: a few points far off do not decide alone.

        Args:
            weights: of the points in the mean: [n].
        """
        scaled = self.residuals / self.deviation
        return float(np.average(student.logpdf(scaled, FREEDOM) - np.log(self.deviation), weights=weights))

    @property
    def told(self) -> FloatArray:
        """Share of every point's variance that is not the known error of an estimate: 1 where it was measured: [n]."""
        share: FloatArray = 1 - (self.errors / self.deviation) ** 2
        return share

    @property
    def inflation(self) -> float:
        """By what the standard deviations are too small: the 68 % quantile of scaled absolute residuals, at least 1."""
        return max(1.0, float(np.quantile(np.abs(self.residuals) / self.deviation, 0.6827)))

    def without(self, genes: IntArray) -> FloatArray:
        """Latent values of any configurations, by the fit that did not see point i: [m, n]."""
        by_fold = np.stack([fit.model.predict(genes) + fit.local(fit.features_of(genes)) for fit in self.fits], axis=1)
        values: FloatArray = by_fold[:, self.fold]
        return values


def cross_fit(fit: TableFit, folds: int = FOLDS, seed: int = 0) -> CrossFit:
    """Fit again without each fold; pairs are chosen anew.

    Args:
        fit: to all points, at least 2; its scales are kept.
        folds: how many.
        seed: of the division into folds.

    Returns:
        The fits and what they predict.
    """
    genes, latent, errors, prior = fit.features.genes, fit.latent, fit.errors, fit.model.prior
    count = min(folds, len(latent))
    fold = np.random.default_rng([seed, len(latent)]).permutation(len(latent)) % count
    predicted, deviation = np.empty(len(latent)), np.empty(len(latent))
    alone = fit.model.with_pairs(np.zeros((0, 2), dtype=np.int64))
    fits = []
    for left in range(count):
        out = fold == left
        seen: dict[str, Any] = {"errors": errors[~out], "scales": fit.scales}
        found = fit_table(prior, genes[~out], latent[~out], corrected=fit.corrected, start=alone, **seen)
        if len(fit.model.pairs):
            pairs = chosen_pairs(found, len(fit.model.pairs))
            found = fit_table(prior, genes[~out], latent[~out], pairs=pairs, start=found.model, **seen)
        features = found.features_of(genes[out])
        predicted[out] = found.model.predict(genes[out]) + found.local(features)
        deviation[out] = np.sqrt(found.predictive_variance(features) + errors[out] ** 2)
        fits.append(found)
    return CrossFit(tuple(fits), fold, errors, predicted, deviation, latent - predicted)
