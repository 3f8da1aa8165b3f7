r"""The table of losses itself, refitted to measurements: Bayesian, closed form at every step.

The model is that of :mod:`.additive`. Its prior is the proxies' scores: :math:`w_p \sim N(1/P, v_w)`,
:math:`b \sim N(1, v_b)`, and a hierarchy of factors

.. math:: \theta_{gf} = u_g + v_f + r_{gf}, \quad u \sim N(0, \tau_s^2),\ v \sim N(0, \tau_f^2),\ r \sim N(0, \tau_e^2)

so the standard deviation of an entry is proportional to its score: a whole site may be more sensitive than it was
scored, a format coarser, or a single entry off. The noise is what no table explains: its scale :math:`\sigma` and the
three :math:`\tau` maximise the evidence, and its shape is a Student t with 4 degrees of freedom, as a scale mixture
(Lange, Little and Taylor 1989, JASA 84:881), so that a few configurations far from the rest, where the model breaks
down, do not spoil it elsewhere. Each Gauss-Newton step is a linear Gaussian model (:mod:`.gaussian`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .additive import Additive, Features
from .gaussian import Gaussian
from .prior import Prior
from .scales import (
    KINDS,
    SLOPE,
    VAGUE,
    WEIGHT,
    Scales,
    increments,
    most_evident,
    prior_covariance,
    prior_variance,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FREEDOM = 4.0  # of the Student t
_STEPS = 12  # Gauss-Newton, at most
_SEARCHED = (0, 1, 3)  # steps at which the scales are searched
_ENOUGH = 0.05  # gain in log posterior density below which another step is not worth it
_LEAST_SLOPE = 0.1


@dataclass(frozen=True, eq=False)
class TableFit:
    """A fitted table.

    Attributes:
        model: the estimate.
        features: of the points, at the estimate.
        scales: that maximise the evidence.
        gaussian: the last linear model; its residuals are those at the estimate.
        latent: what was fitted: [n].
        errors: standard errors of what was fitted, 0 where it was measured: [n].
        corrected: whether the table is corrected, or only the blend of the scores.
    """

    model: Additive
    features: Features
    scales: Scales
    gaussian: Gaussian
    latent: FloatArray
    errors: FloatArray
    corrected: bool = True

    def features_of(self, genes: IntArray) -> Features:
        """Features of any configurations at the estimate."""
        return Features.of(self.model, genes)

    def covariance(self, one: Features, other: Features) -> FloatArray:
        """Prior covariance of latent values, without noise: [n, m]."""
        return prior_covariance(one, other, self.scales, self.model.slope, self.corrected)

    def local(self, features: Features) -> FloatArray:
        """What is expected beyond the table, from the neighbours that were measured: latent, [n]."""
        moved: FloatArray = self.scales.local**2 * features.similarity(self.features) @ self.gaussian.alpha
        return moved

    def predictive_variance(self, features: Features) -> FloatArray:
        """Posterior variance of latent values as they would be measured: [n]."""
        return self.variance(features) + self.scales.noise**2

    def variance(self, features: Features) -> FloatArray:
        """Posterior variance of latent values without noise: [n]."""
        prior = prior_variance(features, self.scales, self.model.slope, self.corrected)
        return self.gaussian.variance(self.covariance(features, self.features), prior)


def fit_table(
    prior: Prior,
    genes: IntArray,
    latent: FloatArray,
    *,
    errors: FloatArray | None = None,
    corrected: bool = True,
    pairs: IntArray | None = None,
    scales: Scales | None = None,
    start: Additive | None = None,
) -> TableFit:
    """Fit to measurements.

    Args:
        prior: scores of the proxies.
        genes: columns by group: [n, groups].
        latent: measured, on the latent scale: [n].
        errors: standard errors of points that were estimated, 0 of the others; default: all were measured: [n].
        corrected: whether entries of the table are corrected; otherwise only intercept, slope and weights are fitted.
        pairs: groups (g, h), g < h, whose correlation is fitted: [pairs, 2].
        scales: if given they are kept; otherwise they maximise the evidence.
        start: where Gauss-Newton begins; default: the prior.

    Returns:
        The fit.
    """
    model, searched = start or Additive.at(prior), _SEARCHED if scales is None else ()
    scales = scales or Scales()
    if pairs is not None:
        model = model.with_pairs(pairs)
    weights = np.ones(len(latent))
    errors = np.zeros(len(latent)) if errors is None else errors
    for step in range(_STEPS):
        features = Features.of(model, genes)
        target, mean = _linearised(model, features, latent)
        if step in searched:
            scales = most_evident(features, target - mean, weights, errors, scales, model.slope, corrected)
        covariance = prior_covariance(features, features, scales, model.slope, corrected)
        noise = scales.noise**2 / weights + errors**2
        found = Gaussian.fit(covariance, noise, target - mean)
        judge = _Objective(genes, latent, unexplained_precision(features, noise, scales), scales)
        moved = judge.towards(model, _updated(model, features, found, scales, corrected))
        done = step > max(searched, default=1) and judge(model) - judge(moved) < _ENOUGH
        if done or step == _STEPS - 1:
            break
        model = moved
        weights = _robust(found, scales.noise**2, scales.noise**2 / weights)
    return TableFit(model, features, scales, found, latent, errors, corrected)


def unexplained_precision(features: Features, noise: FloatArray, scales: Scales) -> FloatArray:
    """Inverse covariance of what the table does not explain: [n, n]."""
    covariance = scales.local**2 * features.similarity(features)
    return Gaussian.fit(covariance, noise, np.zeros(len(noise))).inverse


@dataclass(frozen=True, eq=False)
class _Objective:
    """Minus the log posterior density of an estimate, scales and weights held fixed."""

    genes: IntArray
    latent: FloatArray
    precision: FloatArray
    scales: Scales

    def __call__(self, model: Additive) -> float:
        first, scales = Additive.at(model.prior), self.scales
        residual = self.latent - model.predict(self.genes)
        misfit = float(residual @ self.precision @ residual)
        misfit += (model.intercept - first.intercept) ** 2 / VAGUE + (model.slope - 1) ** 2 / SLOPE
        misfit += float(((model.weights - first.weights) ** 2).sum()) / WEIGHT
        for kind in KINDS:
            misfit += float((getattr(model, kind) ** 2).sum()) / scales.of(kind) ** 2
        return 0.5 * (misfit + float((model.correlations**2).sum()) / scales.pair**2)

    def towards(self, here: Additive, there: Additive) -> Additive:
        """The first point on the way back from ``there`` that is better than here; here if none is."""
        reached = self(here)
        for share in (1.0, 0.5, 0.25, 0.1, 0.03):
            tried = self._profiled(_between(here, there, share))
            if self(tried) < reached:
                return tried
        return here

    def _profiled(self, model: Additive) -> Additive:
        """With the best intercept."""
        left = self.precision.sum(axis=0) @ (self.latent - model.slope * model.log_sum(self.genes))
        first = Additive.at(model.prior).intercept
        return replace(model, intercept=float((left + first / VAGUE) / (self.precision.sum() + 1 / VAGUE)))


_FITTED = ("intercept", "slope", "weights", "site", "format", "entry", "correlations")


def _between(here: Additive, there: Additive, share: float) -> Additive:
    values = {name: (1 - share) * getattr(here, name) + share * getattr(there, name) for name in _FITTED}
    return replace(here, **values)


def _linearised(model: Additive, features: Features, latent: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Target of the linear model at an estimate, and its prior mean: both [n].

    z = a + b log m + b0 J (eta - eta0) around the estimate eta0, b0; the known part of it is moved to the target.
    """
    first = Additive.at(model.prior)
    moved = features.weights @ (model.weights - first.weights)
    corrections = model.corrections[np.arange(features.genes.shape[1]), features.genes]
    moved = moved + (features.shares * corrections).sum(axis=1) + features.pairs @ model.correlations
    return latent + model.slope * moved, first.intercept + features.logs


def _updated(model: Additive, features: Features, found: Gaussian, scales: Scales, corrected: bool) -> Additive:
    """The posterior mean: prior mean plus increments."""
    first, added = Additive.at(model.prior), increments(features, found.alpha, model.slope, scales)
    if not corrected:
        added = {name: added[name] for name in ("intercept", "slope", "weights")}
    values: dict[str, Any] = {
        name: change if name == "correlations" else getattr(first, name) + change for name, change in added.items()
    }
    values["intercept"] = float(values["intercept"])
    values["slope"] = max(_LEAST_SLOPE, float(values["slope"]))
    return replace(model, **values)


def _robust(found: Gaussian, noise: float, own: FloatArray) -> FloatArray:
    """Weights of the scale mixture: (nu + 1) / (nu + E[e^2] / sigma^2), e the noise of every point.

    ``own`` is the variance of e alone, without that of a known error of the point: [n].
    """
    expected = (own * found.alpha) ** 2 + own - own**2 * np.diag(found.inverse)
    weights: FloatArray = (FREEDOM + 1) / (FREEDOM + expected / noise)
    return weights
