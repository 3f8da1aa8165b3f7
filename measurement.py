"""Measurement: a quality value with its interval. Difference: two of them compared on the same samples."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInput

_LOG_LARGEST = math.log(sys.float_info.max)
_DRAWS = 1 << 22  # bootstrap draws held at a time; so many are also kept for the next measurement of as many samples


@dataclass(frozen=True)
class Measurement:
    """The quality of a configuration on one split of the data; lower is better.

    Attributes:
        metric: name of the metric (``kl``, ``error``, …).
        split: which data: ``validation`` or ``holdout``; ``validation[:16]`` when only its first 16 samples were seen
            (``part_of``), so that a partial measurement is never taken for a full one.
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

    @property
    def partial(self) -> bool:
        """Whether it covers only the first samples of the split."""
        return self.split != whole(self.split)

    def beginning(self, samples: int) -> Measurement:
        """What a measurement of only the first samples would have found; the seconds are shared out by samples.

        Args:
            samples: at least 1; as many as there are, or more, give the measurement itself.

        Raises:
            InvalidInput: no samples are asked for, or the values of the samples are not known.
        """
        if samples >= self.samples:
            return self
        if samples < 1 or len(self.values) != self.samples:
            raise InvalidInput(
                f"the first {samples} of {self.samples} samples with {len(self.values)} known values; ask for at "
                "least 1 sample of a measurement that has the value of every sample"
            )
        values, name = np.array(self.values[:samples]), part_of(whole(self.split), samples)
        return Measurement.of(self.metric, name, values, self.seconds * samples / self.samples)


def part_of(split: str, samples: int) -> str:
    """Name of the first samples of a split: ``validation[:16]``; evaluations of them are stored under it."""
    return f"{split}[:{samples}]"


def whole(split: str) -> str:
    """The split that a name belongs to: ``validation`` of ``validation[:16]`` and of ``validation``."""
    return split.partition("[")[0]


@dataclass(frozen=True)
class Difference:
    """How much one configuration is worse (> 0) or better (< 0) than another, from the same samples.

    Attributes:
        value: aggregate of the first minus aggregate of the second, in the unit of the metric. For perplexity the
            difference of the two exponentials, which has the sign of the difference of the mean losses.
        low: lower end of the paired bootstrap interval.
        high: upper end.
        probability: share of the resamples in which the first is lower (ties count half).
        level: coverage of the interval.
    """

    value: float
    low: float
    high: float
    probability: float
    level: float = 0.95

    @property
    def better(self) -> bool:
        """Whether the first is better: the whole interval lies below 0."""
        return self.high < 0

    @property
    def worse(self) -> bool:
        """Whether the first is worse: the whole interval lies above 0."""
        return self.low > 0


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
    low, high = _ends(bootstrap_means(values, resamples), level)
    return (_exponential(low), _exponential(high)) if metric == "perplexity" else (low, high)


def bootstrap_means(values: NDArray[Any], resamples: int = 2000, seed: int = 0) -> NDArray[np.float64]:
    """Means of bootstrap resamples of ``values`` [samples]: array [resamples].

    The draws depend on the seed and the number of samples alone, so two configurations measured on the same samples
    are resampled alike and their difference is a paired bootstrap.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) * resamples <= _DRAWS:
        means: NDArray[np.float64] = _counts(len(values), resamples, seed).astype(np.float64) @ values / len(values)
        return means
    generator, step = np.random.default_rng(seed), max(1, _DRAWS // len(values))
    counts = [min(step, resamples - start) for start in range(0, resamples, step)]
    return np.concatenate(
        [values[generator.integers(0, len(values), size=(count, len(values)))].mean(1) for count in counts]
    )


@lru_cache(maxsize=4)
def _counts(samples: int, resamples: int, seed: int) -> NDArray[np.uint16]:
    """How often each resample drew each sample: array [resamples, samples].

    Kept, because the configurations of a search are all measured on the same few splits: 30 times as fast as drawing.
    """
    drawn = np.random.default_rng(seed).integers(0, samples, size=(resamples, samples))
    drawn += np.arange(resamples)[:, None] * samples
    counts = np.bincount(drawn.reshape(-1), minlength=resamples * samples)
    return counts.reshape(resamples, samples).astype(np.uint16)


def _ends(means: NDArray[Any], level: float) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def difference(first: Measurement, second: Measurement, level: float = 0.95, resamples: int = 2000) -> Difference:
    """Compare two configurations in pairs, sample by sample: the interval decides which one is better.

    The percentile bootstrap of the per-sample differences (Efron and Tibshirani 1993, chapters 8 and 13): what both
    find hard cancels, so that far smaller differences are seen than the two intervals apart would show.

    Args:
        first: the candidate.
        second: what it is compared with, such as a uniform configuration.
        level: coverage asked for, between 0 and 1.
        resamples: number of bootstrap samples.

    Returns:
        First minus second with its interval. Where all samples agree the interval has no width and none is better.

    Raises:
        InvalidInput: they were not measured with one metric on the same samples, or the level is no coverage.
    """
    if not 0 < level < 1:
        raise InvalidInput(f"level={level}: the coverage of an interval lies between 0 and 1, such as 0.95")
    one, other = _same_samples(first, second)
    gaps = means = bootstrap_means(one - other, resamples)
    if first.metric == "perplexity":
        pairs = zip(bootstrap_means(one, resamples), bootstrap_means(other, resamples), strict=True)
        gaps = np.array([_exponential(a) - _exponential(b) for a, b in pairs])
        value = aggregate(first.metric, one) - aggregate(first.metric, other)
    else:
        value = float(np.mean(one - other))
    return Difference(value, *_ends(gaps, level), _share_below(means), level)


def probability_better(first: Measurement, second: Measurement) -> float:
    """Share of paired bootstrap resamples in which the first is lower than the second (ties count half).

    Raises:
        InvalidInput: they were not measured with one metric on the same number of samples of the same split.
    """
    one, other = _same_samples(first, second)
    return _share_below(bootstrap_means(one - other))


def _share_below(gaps: NDArray[Any]) -> float:
    return float(np.mean(gaps < 0) + 0.5 * np.mean(gaps == 0))


def _same_samples(first: Measurement, second: Measurement) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one, other = ((each.metric, each.split, len(each.values)) for each in (first, second))
    if one != other or not first.values:
        raise InvalidInput(f"not measured on the same samples: {one}, {other}; measure both on one split")
    return np.array(first.values), np.array(second.values)
