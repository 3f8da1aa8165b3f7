r"""The trust report: how well each proxy foretold what was really measured, beside what anybody can guess.

For every proxy, against the same measured configurations: Spearman's rho and Kendall's tau with bootstrap intervals,
overall and at fixed size (``rank_statistics.py`` defines both), the regret of measuring only what it ranks best, and
how close its predictions come after a monotone map. Size alone ranks configurations well, so a proxy earns its passes
at fixed size. Three baselines stand beside: ``size`` and ``bops`` (the larger, the better) and ``random``, whose
intervals are those of random orders.

Calibration is judged out of sample: the map is fitted to all configurations but one and predicts that one, in
:math:`\log (q - q_0)` with :math:`q_0` of the float model. Two maps: the power law that the search uses
(``surrogate.py``) and the isotonic regression, which any ranking allows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import InvalidInput
from .rank_statistics import (
    Estimate,
    FloatArray,
    kendall,
    partial,
    resamples,
    same_size,
    size_strata,
    spearman,
    top_regret,
)
from .surrogate import PowerLaw

TOLERANCE = 0.05  # relative difference of sizes that count as the same
TOP = 5  # configurations that would be measured
BASELINES = ("size", "bops", "random")
_STRATUM, _STRATA = 8, 10  # least points of a size stratum, most strata
_LEAST_PAIRS = 10  # at fixed size, for a tau to be given
_ORDERS = 200  # random orders


@dataclass(frozen=True)
class Calibrated:
    """How far predictions are from measurements after a map was fitted to the others.

    Attributes:
        spread: root mean square of the residuals of log (quality - float quality).
        factor: the median prediction is off by this factor, at least 1.
        points: how many could be predicted.
    """

    spread: float
    factor: float
    points: int


@dataclass(frozen=True)
class Trust:
    """One row of the report; ``None`` where the points do not allow a statement.

    Attributes:
        baseline: whether it is no proxy but what anybody can guess.
        spearman: Spearman's rho of prediction and measurement.
        kendall: Kendall's tau-b.
        spearman_fixed: partial Spearman's rho at fixed size.
        kendall_fixed: Kendall's tau-b over the pairs of the same size.
        regret: of measuring only the ``TOP`` best predicted; 0: the best is among them, 1: as a random choice.
        regret_fixed: of taking the best predicted of each size stratum; mean over the strata.
        power: calibration of the power law.
        monotone: calibration of the isotonic regression.
        seconds: of scoring.
    """

    baseline: bool
    spearman: Estimate | None
    kendall: Estimate | None
    spearman_fixed: Estimate | None
    kendall_fixed: Estimate | None
    regret: float | None
    regret_fixed: float | None
    power: Calibrated | None
    monotone: Calibrated | None
    seconds: float


@dataclass(frozen=True)
class TrustReport:
    """All rows, and what they rest on.

    Attributes:
        rows: by proxy, then the baselines.
        points: measured configurations.
        pairs: of them with the same size.
        tolerance: relative difference of sizes that count as the same.
        top: configurations that ``regret`` measures.
        strata: of size.
    """

    rows: dict[str, Trust]
    points: int
    pairs: int
    tolerance: float
    top: int
    strata: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def trust_report(
    predicted: Mapping[str, FloatArray],
    measured: FloatArray,
    sizes: FloatArray,
    bops: FloatArray,
    *,
    float_quality: float = 0.0,
    seconds: Mapping[str, float] | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> TrustReport:
    """Judge predictions by measurements.

    Args:
        predicted: by proxy: score of every configuration [points], lower is better.
        measured: quality [points], lower is better.
        sizes: price in bytes or megabytes [points].
        bops: bit operations [points].
        float_quality: quality of the float model.
        seconds: by proxy: what scoring took.
        draws: bootstrap resamples.
        seed: of the resamples and the random orders.

    Returns:
        A row for every proxy and baseline; the proxy ``bops`` is the baseline of that name.

    Raises:
        InvalidInput: a proxy is called as one of the other baselines.
    """
    for taken in ("size", "random"):
        if taken in predicted:
            raise InvalidInput(f"a proxy is called {taken!r}, as a baseline of the trust report; register another name")
    took = seconds or {}
    counts = resamples(len(measured), draws, seed)
    pairs = same_size(sizes, TOLERANCE)
    strata = size_strata(sizes, _STRATUM, _STRATA)

    def row(scores: FloatArray, baseline: bool, spent: float) -> Trust:
        rho = spearman(scores, measured, counts)
        fixed = partial(rho, spearman(scores, sizes, counts), spearman(measured, sizes, counts))
        enough = pairs.sum() // 2 >= _LEAST_PAIRS
        return Trust(
            baseline=baseline,
            spearman=Estimate.of(rho),
            kendall=Estimate.of(kendall(scores, measured, counts)),
            spearman_fixed=Estimate.of(fixed),
            kendall_fixed=Estimate.of(kendall(scores, measured, counts, pairs)) if enough else None,
            regret=top_regret(scores, measured, TOP),
            regret_fixed=_mean_regret(scores, measured, strata),
            power=calibrated_power(scores, measured, float_quality),
            monotone=calibrated_monotone(scores, measured, float_quality),
            seconds=spent,
        )

    rows = {name: row(scores, False, took.get(name, 0.0)) for name, scores in predicted.items()}
    rows["size"], rows["bops"] = row(-sizes, True, 0.0), row(-bops, True, 0.0)
    rows["random"] = _random(measured, sizes, pairs, seed)
    return TrustReport(rows, len(measured), int(pairs.sum()) // 2, TOLERANCE, TOP, len(strata))


def calibrated_power(scores: FloatArray, measured: FloatArray, offset: float = 0.0) -> Calibrated | None:
    """Leave-one-out calibration of the power law; ``None`` with fewer than five positive scores and excesses."""
    usable = (scores > 0) & (measured > offset)
    x, y = scores[usable], measured[usable]
    if len(x) < 5:
        return None
    residuals = []
    for left in range(len(x)):
        law = PowerLaw.fit(np.delete(x, left), np.delete(y, left), offset)
        if law is not None:
            residuals.append(math.log(law.predict(float(x[left])) - offset) - math.log(y[left] - offset))
    return _calibrated(residuals)


def calibrated_monotone(scores: FloatArray, measured: FloatArray, offset: float = 0.0) -> Calibrated | None:
    """Leave-one-out calibration of the isotonic regression of log excess on score; ``None`` with fewer than five."""
    from scipy.optimize import isotonic_regression

    usable = measured > offset
    order = np.argsort(scores[usable], kind="stable")
    x, y = scores[usable][order], np.log(measured[usable][order] - offset)
    if len(x) < 5:
        return None
    residuals = []
    for left in range(len(x)):
        others, inverse, counts = np.unique(np.delete(x, left), return_inverse=True, return_counts=True)
        means = np.bincount(inverse, np.delete(y, left)) / counts
        fitted = isotonic_regression(means, weights=counts).x
        residuals.append(float(np.interp(x[left], others, fitted) - y[left]))
    return _calibrated(residuals)


def _calibrated(residuals: list[float]) -> Calibrated | None:
    if not residuals or not np.isfinite(residuals).all():
        return None
    found = np.asarray(residuals)
    return Calibrated(float(np.sqrt(np.mean(found**2))), float(np.exp(np.median(np.abs(found)))), len(found))


def _mean_regret(scores: FloatArray, measured: FloatArray, strata: list[Any]) -> float | None:
    """Mean over the strata that leave a choice; ``None`` if there is only one stratum."""
    if len(strata) < 2:
        return None
    regrets = [top_regret(scores[part], measured[part], 1) for part in strata]
    told = [regret for regret in regrets if regret is not None]
    return float(np.mean(told)) if told else None


def _random(measured: FloatArray, sizes: FloatArray, pairs: Any, seed: int) -> Trust:
    """What random orders reach: 0 with the interval over orders, a regret of 1."""
    generator = np.random.default_rng(seed)
    once = np.ones((1, len(measured)))
    against_size = spearman(measured, sizes, once)
    found: dict[str, list[float]] = {"spearman": [], "kendall": [], "spearman_fixed": [], "kendall_fixed": []}
    for _ in range(_ORDERS):
        order = generator.permutation(len(measured)).astype(np.float64)
        rho = spearman(order, measured, once)
        found["spearman"].append(float(rho[0]))
        found["kendall"].append(float(kendall(order, measured, once)[0]))
        found["spearman_fixed"].append(float(partial(rho, spearman(order, sizes, once), against_size)[0]))
        found["kendall_fixed"].append(float(kendall(order, measured, once, pairs)[0]))
    if pairs.sum() // 2 < _LEAST_PAIRS:
        found["kendall_fixed"] = [math.nan]
    intervals = {
        name: Estimate.of(np.array([0.0, *values])) if np.isfinite(values).all() else None
        for name, values in found.items()
    }
    return Trust(True, **intervals, regret=1.0, regret_fixed=1.0, power=None, monotone=None, seconds=0.0)
