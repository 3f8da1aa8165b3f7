"""The surrogate: what quality is expected of a configuration that was not measured, refitted after every round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from ..rank_statistics import resamples, spearman
from .conformal import Coverage, jackknife_plus, student_interval
from .cross_fit import CrossFit, cross_fit
from .latent import Latent
from .monotone import MonotoneMap, left_out_residuals
from .pairwise import chosen_pairs, pair_tables
from .posterior import drawn_log_table, monotone_log_table
from .prior import Prior
from .table import FREEDOM, TableFit, fit_table

if TYPE_CHECKING:
    from ..problem import Problem
    from ..proposers.proposer import Evaluated

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Kind = Literal["prior", "map", "table", "pairs"]

_FEW = 5  # points below which only the intercept moves much: the prior and a power law
_PAIRS_FROM = 40  # points from which pairs are tried
_MAP_FROM = 30  # points from which an isotonic map is tried
_GAIN = 0.02  # in mean log predictive density: what a ceiling must be better by
_MARGIN: dict[Kind, float] = {"prior": 0.0, "map": 0.0, "table": 0.02, "pairs": 0.04}  # likewise of flexible models
_BEND = 0.95  # share of the left-out error that an isotonic map must leave at most


@dataclass(frozen=True, eq=False)
class Prediction:
    """Expected qualities of n configurations, in units of the quality.

    Attributes:
        mean: the median of what is expected: [n].
        low: lower end of the interval: [n].
        high: upper end: [n].
        sd: half the distance between the quantiles one standard deviation below and above: [n].
    """

    mean: FloatArray
    low: FloatArray
    high: FloatArray
    sd: FloatArray


@dataclass(frozen=True, eq=False)
class Fitted:
    """A surrogate fitted to what was measured so far.

    Attributes:
        problem: the space and the scores.
        kind: ``prior`` (too few points: scores and a power law), ``map`` (scores and a monotone map), ``table`` (the
            table of losses refitted) or ``pairs`` (with interactions).
        latent: the scale on which it was fitted.
        points: how many measurements it rests on.
        coverage: of earlier predictions.
        candidates: mean log predictive density of left-out points of every kind that was tried, higher is better.
        left_out: predictions of the points by fits that did not see them, on the latent scale: [points].
        measured: the same points, measured, on the latent scale: [points].
    """

    problem: Problem
    kind: Kind
    latent: Latent
    points: int
    coverage: Coverage
    candidates: dict[str, float]
    left_out: FloatArray
    measured: FloatArray
    _fit: TableFit
    _cross: CrossFit | None
    _map: MonotoneMap
    _log_table: FloatArray

    @property
    def table(self) -> FloatArray:
        """Loss of every site in every format, positive, for the allocator: [sites, formats]; 0 where not offered.

        Only ratios matter: sums of it (with :attr:`pairs`) rank configurations as the predictions do.
        """
        return self._by_site(self._log_table)

    @property
    def pairs(self) -> dict[tuple[int, int], FloatArray]:
        """Two site indices -> what the two cost beyond their sum, [formats, formats], for ``allocate(pair_loss=)``."""
        return pair_tables(self._fit.model, self._log_table - self._level)

    def sample(self, generator: np.random.Generator) -> FloatArray:
        """A table drawn from the posterior (Thompson sampling): positive, [sites, formats], 0 where not offered.

        Solving it exactly gives a configuration with the probability that it is optimal. Each draw is repaired like
        :attr:`table`; the correlations of :attr:`pairs` stay at their mean.
        """
        drawn = drawn_log_table(self._fit, generator)
        return self._by_site(monotone_log_table(self._fit, drawn))

    def predict(self, choices: IntArray) -> Prediction:
        """What is expected of configurations.

        Args:
            choices: columns of the space: [n, sites].

        Returns:
            The prediction; intervals cover what :attr:`coverage` asks for.
        """
        mean, deviation, low, high = self._intervals(choices)
        inverse = self.latent.inverse
        sd = 0.5 * (inverse(mean + deviation) - inverse(mean - deviation))
        return Prediction(inverse(mean), inverse(low), inverse(high), sd)

    def latent_moments(self, choices: IntArray) -> tuple[FloatArray, FloatArray]:
        """Mean [n] and covariance [n, n] of the latent values, with what no table explains on the diagonal."""
        features = self._fit.features_of(self._genes(choices))
        cross = self._fit.covariance(features, self._fit.features)
        covariance = self._fit.covariance(features, features) - cross @ self._fit.gaussian.inverse @ cross.T
        np.fill_diagonal(covariance, self._fit.predictive_variance(features))
        return self._mean(choices), covariance * self._inflation**2

    def report(self) -> dict[str, Any]:
        """What it is and how far to trust it, as plain data."""
        measured, predicted = self.measured, self.left_out
        spread = float(((measured - measured.mean()) ** 2).sum()) if len(measured) else 0.0
        explained = 1 - float(((measured - predicted) ** 2).sum()) / spread if spread > 0 else None
        rho = math.nan
        if len(measured) > 2:
            rho = float(spearman(predicted, measured, resamples(len(measured), 0, 0))[0])
        return {
            "kind": self.kind,
            "few_points": self.kind == "prior",
            "points": self.points,
            "map": "isotonic" if len(self._map.knots) else "power law",
            "exponent": self._fit.model.slope,
            "weights": dict(zip(self._fit.model.prior.proxies, self._fit.model.weights.tolist(), strict=True)),
            "scales": asdict(self._fit.scales),
            "pairs": len(self._fit.model.pairs),
            "offset": self.latent.offset,
            "ceiling": None if math.isinf(self.latent.ceiling) else self.latent.ceiling,
            "left_out_density": dict(self.candidates),
            "left_out_error": float(np.mean(np.abs(measured - predicted))),
            "left_out_spearman": None if math.isnan(rho) else rho,
            "left_out_r2": explained,
            "coverage": {
                "asked": self.coverage.asked,
                "reached": self.coverage.share,
                "predictions": self.coverage.told,
                "factor": self.coverage.factor,
            },
        }

    @property
    def _level(self) -> float:
        """Log of the largest entry: tables are told relative to it."""
        return float(self._log_table[self._fit.model.prior.groups.allowed].max())

    def _genes(self, choices: IntArray) -> IntArray:
        return self._fit.model.prior.groups.contract(np.atleast_2d(choices))

    def _mean(self, choices: IntArray) -> FloatArray:
        genes = self._genes(choices)
        local = self._fit.local(self._fit.features_of(genes))
        return self._map(self._fit.model.with_table(self._log_table).predict(genes) + local)

    def _intervals(self, choices: IntArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Latent mean, standard deviation, low, high: each [n]."""
        features = self._fit.features_of(self._genes(choices))
        deviation = self._inflation * np.sqrt(self._fit.predictive_variance(features))
        mean, alpha, factor = self._mean(choices), 1 - self.coverage.asked, self.coverage.factor
        low, high = student_interval(mean, factor * deviation, self.points, alpha)
        if self._cross is not None:
            residual = np.abs(self.measured - self.left_out) / (self._inflation * self._cross.deviation)
            without = self._map(self._cross.without(features.genes))
            lower, upper = jackknife_plus(without, factor * deviation, residual, alpha)
            low = np.where(np.isfinite(lower), lower, low)
            high = np.where(np.isfinite(upper), upper, high)
        return mean, deviation, np.minimum(low, mean), np.maximum(high, mean)

    @property
    def _inflation(self) -> float:
        return 1.0 if self._cross is None else self._cross.inflation

    def _by_site(self, log_table: FloatArray) -> FloatArray:
        prior = self._fit.model.prior
        table = np.where(prior.groups.allowed, np.exp(log_table - self._level), 0.0)
        return np.where(self.problem.space.allowed, prior.by_site(table), 0.0)


class Surrogate:
    """Learns from everything measured; the scores of the proxies are its prior.

    Args:
        problem: space and scores; all its proxies are used.
        float_quality: quality of the float model.
        seed: kept for interface stability of reruns; the fit itself draws nothing.
        coverage: asked of the intervals.

    Raises:
        InvalidInput: the float quality is not finite, or no coverage.
    """

    def __init__(self, problem: Problem, float_quality: float, seed: int = 0, coverage: float = 0.9) -> None:
        if not math.isfinite(float_quality):
            raise InvalidInput(f"float_quality={float_quality}; measure the float model first")
        self.problem = problem
        self.float_quality = float_quality
        self.seed = seed
        self.coverage = Coverage.of(coverage)
        self.fitted: Fitted | None = None
        self._prior = Prior.of(problem)
        self._known: set[bytes] = set()

    def fit(self, evaluated: Sequence[Evaluated]) -> Fitted:
        """Refit to all measurements so far.

        What was not there at the last fit tests its intervals first.

        Args:
            evaluated: everything measured, in the order of proposal.

        Returns:
            The fitted surrogate.

        Raises:
            InvalidInput: nothing was measured, or a quality is not finite.
        """
        if not evaluated:
            raise InvalidInput("the surrogate is fitted to measurements; give at least one")
        self._test(evaluated)
        genes = self._prior.groups.contract(np.stack([found.choice for found in evaluated]))
        quality = np.array([found.quality for found in evaluated])
        scale = Latent.of(self.float_quality, [found.measurement for found in evaluated])
        latent, simple = self._scaled(scale, genes, quality)
        measured = latent.forward(quality)
        kind, candidates, fit, cross = self._chosen(genes, simple)
        left_out = measured - fit.gaussian.left_out()[0] if cross is None else cross.predicted
        bend = _bend(left_out, measured)
        self.fitted = Fitted(
            self.problem,
            kind,
            latent,
            len(evaluated),
            self.coverage,
            candidates,
            bend(left_out),
            measured,
            fit,
            cross,
            bend,
            monotone_log_table(fit, fit.model.log_table()),
        )
        return self.fitted

    def _test(self, evaluated: Sequence[Evaluated]) -> None:
        """Compare the last predictions with what was measured since."""
        fresh = [found for found in evaluated if found.choice.tobytes() not in self._known]
        if self.fitted is not None and fresh:
            told = self.fitted.predict(np.stack([found.choice for found in fresh]))
            quality = np.array([found.quality for found in fresh])
            self.coverage = self.coverage.after((told.low <= quality) & (quality <= told.high))
        self._known |= {found.choice.tobytes() for found in fresh}

    def _scaled(self, scale: Latent, genes: IntArray, quality: FloatArray) -> tuple[Latent, TableFit]:
        """The scale on which scores and a power law predict left-out points best, and that fit."""
        tried = scale.saturating(quality) if len(quality) >= 2 * _FEW else [scale]
        fits = [fit_table(self._prior, genes, each.forward(quality), corrected=False) for each in tried]
        density = [
            fit.gaussian.left_out_density(FREEDOM) + float(each.log_slope(quality).mean())
            for each, fit in zip(tried, fits, strict=True)
        ]
        best = int(np.argmax(np.array(density) - np.array([0.0, *[_GAIN] * (len(tried) - 1)])))
        return tried[best], fits[best]

    def _chosen(self, genes: IntArray, simple: TableFit) -> tuple[Kind, dict[str, float], TableFit, CrossFit | None]:
        """The most flexible model that predicts points it did not see better than the simpler ones."""
        if len(genes) < _FEW:
            return "prior", {}, simple, None
        fits: dict[Kind, TableFit] = {"map": simple, "table": fit_table(self._prior, genes, simple.latent)}
        if len(genes) >= _PAIRS_FROM:
            fits["pairs"] = fit_table(self._prior, genes, simple.latent, pairs=chosen_pairs(fits["table"]))
        crossed = {kind: cross_fit(fit) for kind, fit in fits.items()}
        density = {kind: cross.density for kind, cross in crossed.items()}
        best = max(density, key=lambda kind: density[kind] - _MARGIN[kind])
        return best, {str(kind): value for kind, value in density.items()}, fits[best], crossed[best]


def _bend(predicted: FloatArray, measured: FloatArray) -> MonotoneMap:
    """A monotone map of the left-out predictions, if it predicts left-out points better."""
    if len(measured) < _MAP_FROM:
        return MonotoneMap.identity()
    bent = float(np.mean(np.abs(left_out_residuals(predicted, measured))))
    if bent < _BEND * float(np.mean(np.abs(measured - predicted))):
        return MonotoneMap.fit(predicted, measured)
    return MonotoneMap.identity()
