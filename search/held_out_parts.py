"""Two parts of the held-out data: one helps to choose among the finalists, the other judges the choice.

Whoever is chosen by a sample looks better on it than it is. So the samples that choose cannot judge. Of every two
consecutive samples one, drawn with a fixed seed, goes to each part: both are spread over the whole split, and an order
with a period (photographs taken in turn, pairs of sentences) does not send all of a kind to one side. The division
depends on the number of samples alone. A split of fewer than 32 samples is not divided: all of it judges.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..measurement import Measurement

IntArray = NDArray[np.int64]
LEAST = 32
"""Samples of a held-out split from which it is divided."""


@lru_cache(maxsize=16)
def parts(samples: int) -> tuple[IntArray, IntArray]:
    """Indices of the samples that choose, and of those that judge.

    Args:
        samples: of the held-out split.

    Returns:
        Ascending indices; together every sample once. The first is empty below ``LEAST`` samples.
    """
    if samples < LEAST:
        return np.zeros(0, dtype=np.int64), np.arange(samples, dtype=np.int64)
    pairs = samples // 2
    first = 2 * np.arange(pairs) + np.random.default_rng(pairs).integers(0, 2, size=pairs)
    chosen = np.zeros(samples, dtype=bool)
    chosen[first] = True
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)  # an odd one out judges


def choosing(found: Measurement) -> Measurement | None:
    """A held-out measurement on the samples that choose; ``None`` where the split is not divided."""
    indices = parts(found.samples)[0]
    return _on(found, indices) if len(indices) else None


def judging(found: Measurement) -> Measurement:
    """A held-out measurement on the samples that judge."""
    indices = parts(found.samples)[1]
    return found if len(indices) == found.samples else _on(found, indices)


def _on(found: Measurement, indices: IntArray) -> Measurement:
    values = np.array(found.values)[indices]
    return Measurement.of(found.metric, found.split, values, found.seconds * len(indices) / found.samples)
