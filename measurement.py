"""Measurement: a quality value with its interval."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LOG_LARGEST = math.log(sys.float_info.max)
_DRAWS = 1 << 22  # bootstrap draws held at a time


@dataclass(frozen=True)
class Measurement:
    """The quality of a configuration on one split of the data; lower is better.

    Attributes:
        metric: name of the metric (``kl``, ``error``, …).
        split: which data: ``validation`` or ``holdout``.
        value: aggregate over the samples.
        low: lower end of the 95 % bootstrap interval.
        high: upper end.
        seconds: wall time of the evaluation.
        samples: number of samples.
        values: the metric of every sample, in order, so that two configurations can be compared in pairs.
    """

    metric: str
    split: str
    value: float
    low: float
    high: float
    seconds: float
    samples: int
    values: tuple[float, ...] = ()

    @staticmethod
    def of(metric: str, split: str, values: NDArray[Any], seconds: float) -> Measurement:
        """Aggregate per-sample values [samples] and attach the interval."""
        low, high = interval(metric, values)
        return Measurement(
            metric, split, aggregate(metric, values), low, high, seconds, len(values), tuple(float(v) for v in values)
        )


def aggregate(metric: str, values: NDArray[Any]) -> float:
    """Mean over the samples [samples]; for perplexity the exponential of the mean."""
    mean = float(np.mean(values))
    return _exponential(mean) if metric == "perplexity" else mean


def _exponential(mean: float) -> float:
    """The exponential, or the largest float where it would overflow: a bad candidate is still a number."""
    return math.exp(mean) if mean < _LOG_LARGEST else sys.float_info.max


def interval(metric: str, values: NDArray[Any], level: float = 0.95, resamples: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap interval of the aggregate (Efron and Tibshirani 1993, chapter 13), with a fixed seed.

    Args:
        metric: name of the metric.
        values: per-sample values [samples].
        level: coverage asked for.
        resamples: number of bootstrap samples.

    Returns:
        Lower and upper end.
    """
    means = bootstrap_means(values, resamples)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return (_exponential(low), _exponential(high)) if metric == "perplexity" else (float(low), float(high))


def bootstrap_means(values: NDArray[Any], resamples: int = 2000, seed: int = 0) -> NDArray[np.float64]:
    """Means of bootstrap resamples of ``values`` [samples]: array [resamples].

    The draws depend on the seed and the number of samples alone, so two configurations measured on the same samples
    are resampled alike and their difference is a paired bootstrap.
    """
    values, generator = np.asarray(values, dtype=np.float64), np.random.default_rng(seed)
    step = max(1, _DRAWS // len(values))
    counts = [min(step, resamples - start) for start in range(0, resamples, step)]
    return np.concatenate(
        [values[generator.integers(0, len(values), size=(count, len(values)))].mean(1) for count in counts]
    )


def probability_better(first: Measurement, second: Measurement) -> float:
    """Share of paired bootstrap resamples in which the first is lower than the second (ties count half).

    Raises:
        ValueError: they were not measured with one metric on the same number of samples of the same split.
    """
    one, other = ((each.metric, each.split, len(each.values)) for each in (first, second))
    if one != other or not first.values:
        raise ValueError(f"not measured on the same samples: {one}, {other}; measure both on one split")
    gap = bootstrap_means(np.array(first.values)) - bootstrap_means(np.array(second.values))
    return float(np.mean(gap < 0) + 0.5 * np.mean(gap == 0))
