r"""What an allocator would pick, asked of a bench: the configurations predicted best among those of about one size.

Configurations are sorted by size and cut into strata of equal number. In a stratum of n, with the k that are predicted
best and their ranks q of measured loss (0 the best, n - 1 the worst, ties share the mean), the standing is

.. math:: \tau = 1 - \frac{2}{n - 1} \cdot \frac1k \sum_{i \in \text{top } k} q_i,

its mean over the strata 0 in the mean for a random prediction, at most :math:`1 - (k - 1)/(n - 1)`. A prediction that
is turned around has nearly, not exactly, the negative: what is predicted worst says nothing of what is predicted best.
Predictions that are tied at the edge of the k take equal parts of it. It is the mean regret in ranks, so that one
disastrous configuration does not drown the rest.
"""

from __future__ import annotations

import numpy as np

from .bench_data import FloatArray, IntArray
from .ranks import average_ranks, dense_ranks

STRATUM = 24
"""Configurations of a stratum, about."""
PICKED = 1 / 6
"""Share of a stratum that counts as predicted best."""


class Extremes:
    """Prepared for many predictions of the same configurations.

    Args:
        sizes: of the configurations, [points].
        measured: their quality, lower is better, [points].
        stratum: configurations of a stratum, about.
    """

    def __init__(self, sizes: FloatArray, measured: FloatArray, stratum: int = STRATUM) -> None:
        count = max(1, round(len(sizes) / stratum))
        self._strata: list[tuple[IntArray, FloatArray]] = []
        for points in np.array_split(np.argsort(sizes, kind="stable"), count):
            ranks = average_ranks(dense_ranks(measured[points]))
            self._strata.append((points, 1 - 2 * ranks / max(1, len(points) - 1)))

    def standing(self, predicted: FloatArray) -> float:
        """Mean standing of the configurations predicted best, between -1 and 1.

        Args:
            predicted: loss or its ranks, lower is better, [points].
        """
        found = [_top(predicted[points], standing) for points, standing in self._strata]
        return float(np.mean(found))


def _top(predicted: FloatArray, standing: FloatArray) -> float:
    """Mean standing of the lowest predictions; those tied with the last of them share what is left."""
    count = max(1, round(PICKED * len(predicted)))
    edge = np.partition(predicted, count - 1)[count - 1]
    below, tied = predicted < edge, predicted == edge
    left = (count - int(below.sum())) * float(standing[tied].mean())
    return (float(standing[below].sum()) + left) / count
