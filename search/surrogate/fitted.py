"""A fitted surrogate: predictions with intervals, tables for the allocator, draws, and what to tell users."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..rank_statistics import resamples, spearman
from .conformal import Coverage, jackknife_plus, student_interval
from .cross_fit import CrossFit
from .latent import Latent
from .monotone import MonotoneMap
from .pairwise import pair_tables
from .posterior import drawn_log_table, monotone_log_table
from .table import TableFit
from .threads import one_thread

if TYPE_CHECKING:
    from ..problem import Problem

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Kind = Literal["prior", "map", "table", "pairs"]


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
        points: how many measurements and estimates it rests on.
        coverage: of earlier predictions.
        candidates: mean log predictive density of left-out points of every kind that was tried, higher is better.
        left_out: predictions of the points by fits that did not see them, on the latent scale: [points].
        measured: the same points, measured or estimated, on the latent scale: [points].
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

    @one_thread()
    def sample(self, generator: np.random.Generator) -> FloatArray:
        """A table drawn from the posterior (Thompson sampling): positive, [sites, formats], 0 where not offered.

        Solving it exactly gives a configuration with the probability that it is optimal. Each draw is repaired like
        :attr:`table`; the correlations of :attr:`pairs` stay at their mean.
        """
        drawn = drawn_log_table(self._fit, generator)
        return self._by_site(monotone_log_table(self._fit, drawn))

    @one_thread()
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

    @one_thread()
    def latent_moments(self, choices: IntArray) -> tuple[FloatArray, FloatArray]:
        """Mean [n] and covariance [n, n] of the latent values, with what no table explains on the diagonal."""
        features = self._fit.features_of(self._genes(choices))
        cross = self._fit.covariance(features, self._fit.features)
        covariance = self._fit.covariance(features, features) - cross @ self._fit.gaussian.inverse @ cross.T
        np.fill_diagonal(covariance, self._fit.predictive_variance(features))
        return self._mean(choices), covariance * self._inflation**2

    def report(self) -> dict[str, Any]:
        """What it is and how far to trust it, as plain data."""
        measured, predicted = self.measured[self._exact], self.left_out[self._exact]
        spread = float(((measured - measured.mean()) ** 2).sum()) if len(measured) else 0.0
        explained = 1 - float(((measured - predicted) ** 2).sum()) / spread if spread > 0 else None
        rho = math.nan
        if len(measured) > 2:
            rho = float(spearman(predicted, measured, resamples(len(measured), 0, 0))[0])
        return {
            "kind": self.kind,
            "few_points": self.kind == "prior",
            "points": self.points,
            "estimated": int((~self._exact).sum()),
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
            residual, without = residual[self._exact], without[:, self._exact]
            lower, upper = jackknife_plus(without, factor * deviation, residual, alpha)
            low = np.where(np.isfinite(lower), lower, low)
            high = np.where(np.isfinite(upper), upper, high)
        return mean, deviation, np.minimum(low, mean), np.maximum(high, mean)

    @property
    def _exact(self) -> NDArray[np.bool_]:
        """Which points were measured, not estimated: those whose residuals are of the kind that intervals speak of."""
        exact: NDArray[np.bool_] = self._fit.errors == 0
        return exact

    @property
    def _inflation(self) -> float:
        return 1.0 if self._cross is None else self._cross.inflation

    def _by_site(self, log_table: FloatArray) -> FloatArray:
        prior = self._fit.model.prior
        table = np.where(prior.groups.allowed, np.exp(log_table - self._level), 0.0)
        return np.where(self.problem.space.allowed, prior.by_site(table), 0.0)
