r"""The prior of the parameters of :mod:`.additive`, its scales, and the evidence that chooses them.

All parameters are independent and normal a priori: intercept, slope and weights of proxies with fixed variances, the
factors of sites, formats and entries and the correlations of pairs with scales that are fitted. What no table explains
is a smooth function of the configuration (:meth:`Features.similarity`) plus noise. The scales maximise the evidence of
a linearised model times log-normal hyperpriors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .additive import Features
from .gaussian import log_evidence

FloatArray = NDArray[np.float64]

KINDS = ("site", "format", "entry")
VAGUE = 100.0  # prior variance of the intercept
SLOPE = 0.5  # prior variance of the slope
WEIGHT = 0.1  # prior variance of the weight of a proxy
# medians of the log-normal hyperpriors
_USUAL = {"site": 0.5, "format": 0.3, "entry": 0.3, "pair": 0.2, "local": 0.15, "noise": 0.07}


@dataclass(frozen=True)
class Scales:
    """Standard deviations.

    Attributes:
        site: of the factor of a group, in logs.
        format: of that of a format.
        entry: of that of an entry.
        pair: of a correlation.
        local: of what the table does not explain and neighbours have in common, in latent units.
        noise: of what the table does not explain otherwise, in latent units.
    """

    site: float = _USUAL["site"]
    format: float = _USUAL["format"]
    entry: float = _USUAL["entry"]
    pair: float = _USUAL["pair"]
    local: float = _USUAL["local"]
    noise: float = _USUAL["noise"]

    def of(self, kind: str) -> float:
        """By name."""
        value: float = getattr(self, kind)
        return value

    def log_prior(self) -> float:
        """Log density of the hyperpriors up to a constant: log-normal, each within a factor e of its usual value."""
        return -0.5 * float(sum(np.log(self.of(kind) / usual) ** 2 for kind, usual in _USUAL.items()))


def prior_covariance(one: Features, other: Features, scales: Scales, slope: float, corrected: bool) -> FloatArray:
    """Prior covariance of the latent values of two sets of configurations: [n, m]."""
    total = VAGUE + SLOPE * np.outer(one.logs, other.logs)
    total += slope**2 * WEIGHT * one.weights @ other.weights.T
    total += scales.local**2 * one.similarity(other)
    if corrected:
        parts = one.covariances(other)
        total += slope**2 * sum(scales.of(kind) ** 2 * parts[kind] for kind in KINDS)
        total += (slope * scales.pair) ** 2 * one.pairs @ other.pairs.T
    found: FloatArray = total
    return found


def prior_variance(features: Features, scales: Scales, slope: float, corrected: bool) -> FloatArray:
    """The diagonal of :func:`prior_covariance` of a set with itself: [n]."""
    total = VAGUE + SLOPE * features.logs**2 + slope**2 * WEIGHT * (features.weights**2).sum(axis=1)
    total += scales.local**2
    if corrected:
        squares = (features.shares**2).sum(axis=1)
        total += slope**2 * (scales.site**2 + scales.entry**2) * squares
        total += slope**2 * scales.format**2 * (features.by_format**2).sum(axis=1)
        total += (slope * scales.pair) ** 2 * (features.pairs**2).sum(axis=1)
    found: FloatArray = total
    return found


def most_evident(
    features: Features,
    residual: FloatArray,
    weights: FloatArray,
    errors: FloatArray,
    start: Scales,
    slope: float,
    corrected: bool,
) -> Scales:
    """Scales that maximise evidence times hyperprior: coordinate search in factors of 3, then of 1.6.

    Args:
        features: of the points.
        residual: targets less their prior mean: [n].
        weights: of the noise of every point: its variance is ``noise**2 / weights``: [n].
        errors: standard errors of the points, which come on top: [n].
        start: where the search begins.
        slope: b.
        corrected: whether the table is corrected.
    """
    parts = {"local": features.similarity(features) / slope**2}
    if corrected:
        parts |= features.covariances(features)
    if corrected and features.pairs.shape[1]:
        parts["pair"] = features.pairs @ features.pairs.T
    total = prior_covariance(features, features, start, slope, corrected)
    best = start
    known = errors**2
    reached = log_evidence(total, start.noise**2 / weights + known, residual) + start.log_prior()
    for factor in (3.0, 1.6):
        for kind in ("noise", *parts):
            for change in (factor, 1 / factor):
                tried = replace(best, **{kind: best.of(kind) * change})
                added = slope**2 * (tried.of(kind) ** 2 - best.of(kind) ** 2)
                changed = total + added * parts[kind] if kind in parts else total
                found = log_evidence(changed, tried.noise**2 / weights + known, residual) + tried.log_prior()
                if found > reached:
                    best, reached, total = tried, found, changed
                    break
    return best


def increments(features: Features, alpha: FloatArray, slope: float, scales: Scales) -> dict[str, FloatArray]:
    """Prior covariance of every parameter with the points, times alpha: [n] -> what is added to its prior mean."""
    pulled = alpha * slope
    return {
        "intercept": np.asarray(VAGUE * alpha.sum()),
        "slope": np.asarray(SLOPE * (features.logs @ alpha)),
        "weights": WEIGHT * features.weights.T @ pulled,
        "site": scales.site**2 * features.shares.T @ pulled,
        "format": scales.format**2 * features.by_format.T @ pulled,
        "entry": scales.entry**2 * np.stack([pulled @ part for part in features.split()], axis=1),
        "correlations": scales.pair**2 * features.pairs.T @ pulled,
    }


def linear_values(features: Features, deviations: dict[str, FloatArray], slope: float) -> FloatArray:
    """Latent values of the linear model for deviations of the parameters from their prior means: [n]."""
    corrections = deviations["site"][:, None] + deviations["format"] + deviations["entry"]
    effect = features.weights @ deviations["weights"] + features.pairs @ deviations["correlations"]
    effect = effect + (features.shares * corrections[np.arange(features.genes.shape[1]), features.genes]).sum(axis=1)
    values: FloatArray = deviations["intercept"] + deviations["slope"] * features.logs + slope * effect
    return values
