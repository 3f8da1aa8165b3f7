r"""Rank correlations with bootstrap intervals, overall and at fixed size, and the regret of trusting a ranking.

A bootstrap resample of n points is a vector of counts :math:`w` (multinomial, sum n). With the sign matrices
:math:`A_{ij} = \operatorname{sign}(x_i - x_j)` and :math:`B` likewise for y, Kendall's tau-b of the resample is

.. math:: \tau_b(w) = \frac{w^T (A \circ B \circ M)\, w}{\sqrt{w^T (A^2 \circ M)\, w \; w^T (B^2 \circ M)\, w}}

(Kendall 1945, Biometrika 33:239) with :math:`M = 1`; so all resamples are three matrix products. Ranks with ties by
average are :math:`\tfrac12 (A + 1)\, w` up to a constant, and Spearman's rho is their correlation weighted by w.

*At fixed size* the effect of the size z on both is taken away, in two ways:

- Kendall: M keeps only pairs whose sizes differ by at most a tolerance, so tau compares configurations of the same
  size with each other and with no other: Taylor 1987, Biometrics 43:409 (rank correlation with a blocking variable),
  with overlapping blocks.
- Spearman: the partial correlation of the ranks,
  :math:`(\rho_{xy} - \rho_{xz}\rho_{yz}) / \sqrt{(1 - \rho_{xz}^2)(1 - \rho_{yz}^2)}` (Conover 1999, Practical
  Nonparametric Statistics, section 5.4); it is not defined for the size itself.

The intervals are percentile intervals (Efron 1979) over resamples of the configurations.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput

FloatArray = NDArray[np.float64]
_SINGULAR = 1e-9  # a partial correlation divides by 1 - rho^2


@dataclass(frozen=True)
class Estimate:
    """A statistic and its 95 % interval.

    Attributes:
        value: on all points.
        low: 2.5 % quantile over the resamples.
        high: 97.5 % quantile.
    """

    value: float
    low: float
    high: float

    @staticmethod
    def of(values: FloatArray) -> Estimate | None:
        """From the statistic of all points (first) and of the resamples; ``None`` if it is not defined on all points.

        Resamples in which the statistic is not defined do not count.
        """
        if not np.isfinite(values[0]):
            return None
        low, high = np.nanquantile(values, (0.025, 0.975)) if len(values) > 1 else (values[0], values[0])
        return Estimate(float(values[0]), float(low), float(high))


def resamples(points: int, draws: int, seed: int) -> FloatArray:
    """Counts of every point: [1 + draws, points]; the first row is the data itself, all ones."""
    drawn = np.random.default_rng(seed).multinomial(points, np.full(points, 1 / points), size=draws)
    return np.concatenate([np.ones((1, points)), drawn.astype(np.float64)])


def kendall(x: FloatArray, y: FloatArray, counts: FloatArray, pairs: NDArray[np.bool_] | None = None) -> FloatArray:
    """Kendall's tau-b of every resample.

    Args:
        x: [points].
        y: [points].
        counts: [resamples, points], see :func:`resamples`.
        pairs: symmetric [points, points], which pairs are compared; ``None``: all.

    Returns:
        [resamples], NaN where a side has no untied pair.
    """
    first, second = _signs(x), _signs(y)
    if pairs is not None:
        first, second = first * pairs, second * pairs
    concordance = _form(counts, first * second)
    untied = _form(counts, first**2) * _form(counts, second**2)
    tau: FloatArray = np.divide(concordance, np.sqrt(untied), out=np.full(len(counts), np.nan), where=untied > 0)
    return tau


def spearman(x: FloatArray, y: FloatArray, counts: FloatArray) -> FloatArray:
    """Spearman's rho of every resample, ties by average rank: [resamples], NaN where a side is constant."""
    ranks = [counts @ ((1 - _signs(side)) / 2) for side in (x, y)]
    total = counts.sum(axis=1, keepdims=True)
    first, second = (rank - (counts * rank).sum(axis=1, keepdims=True) / total for rank in ranks)
    variances = (counts * first**2).sum(axis=1) * (counts * second**2).sum(axis=1)
    shared = (counts * first * second).sum(axis=1)
    defined = variances > _SINGULAR
    rho: FloatArray = np.divide(shared, np.sqrt(variances), out=np.full(len(counts), np.nan), where=defined)
    return rho


def correlation(x: FloatArray, y: FloatArray) -> float | None:
    """Spearman's rho of all points; ``None`` if a side is constant or there are fewer than three points."""
    if len(x) < 3:
        return None
    rho = float(spearman(x, y, np.ones((1, len(x))))[0])
    return None if np.isnan(rho) else rho


def partial(xy: FloatArray, xz: FloatArray, yz: FloatArray) -> FloatArray:
    """Correlation of x and y with z held fixed, element by element; NaN where z determines x or y."""
    free_x, free_y = 1 - xz**2, 1 - yz**2
    defined = (free_x > _SINGULAR) & (free_y > _SINGULAR)
    scale = np.sqrt(np.where(defined, free_x * free_y, 1.0))
    return np.where(defined, (xy - xz * yz) / scale, np.nan)


def same_size(sizes: FloatArray, tolerance: float) -> NDArray[np.bool_]:
    """Which pairs differ in size by at most a share of the larger: symmetric [points, points], no point with itself."""
    larger = np.maximum(sizes[:, None], sizes[None, :])
    close: NDArray[np.bool_] = np.abs(sizes[:, None] - sizes[None, :]) <= tolerance * larger
    np.fill_diagonal(close, False)
    return close


def size_strata(sizes: FloatArray, least: int, most: int) -> list[NDArray[np.int64]]:
    """Points cut into strata of neighbouring size, as equal in number as can be.

    Args:
        sizes: [points].
        least: points of a stratum.
        most: strata.

    Returns:
        Indices of each stratum, by rising size; one stratum if there are fewer than ``2 * least`` points.
    """
    count = max(1, min(most, len(sizes) // least))
    return [part.astype(np.int64) for part in np.array_split(np.argsort(sizes, kind="stable"), count)]


def expected_minimum(values: FloatArray, picks: int) -> float:
    """Expectation of the smallest of ``picks`` values drawn without replacement, from the order statistics.

    Raises:
        InvalidInput: there are fewer values than picks, or no pick.
    """
    count = len(values)
    if not 1 <= picks <= count:
        raise InvalidInput(f"{picks} picks from {count} values; give between 1 and {count}")
    ordered = np.sort(values)
    chances = [comb(count - 1 - rank, picks - 1) / comb(count, picks) for rank in range(count - picks + 1)]
    return float(np.dot(chances, ordered[: len(chances)]))


def top_regret(predicted: FloatArray, measured: FloatArray, picks: int) -> float | None:
    r"""What is lost by measuring only the ``picks`` configurations that are predicted to be best.

    .. math:: \frac{\min_{i \in \mathrm{top}_k} q_i - \min_i q_i}{E[\min_{i \in R_k} q_i] - \min_i q_i}

    with :math:`R_k` random: 0 if the best is among them, 1 as good as a random choice. Where predictions are tied, the
    expectation over the order of the tied ones.

    Args:
        predicted: [points], lower is better.
        measured: [points], lower is better.
        picks: k; at most one less than there are points.

    Returns:
        The regret, or ``None`` if all are equally good or there are too few points.
    """
    if not 1 <= picks < len(measured):
        return None
    best = float(measured.min())
    chance = expected_minimum(measured, picks) - best
    if not chance > 0:
        return None
    threshold = np.sort(predicted)[picks - 1]
    sure, tied = measured[predicted < threshold], measured[predicted == threshold]
    bound = float(sure.min()) if len(sure) else np.inf
    found = expected_minimum(np.minimum(tied, bound), picks - len(sure))
    return (found - best) / chance


def _signs(values: FloatArray) -> FloatArray:
    return np.sign(values[:, None] - values[None, :]).astype(np.float64)


def _form(counts: FloatArray, matrix: FloatArray) -> FloatArray:
    """The quadratic form of every row: [resamples]."""
    found: FloatArray = ((counts @ matrix) * counts).sum(axis=1)
    return found
