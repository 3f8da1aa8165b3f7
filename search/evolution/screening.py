"""Screening: formulas that give no usable numbers, and formulas that say the same as one that is there.

Two formulas are semantically equal if they order random configurations alike, forwards or backwards: the orientation is
learned, so a formula and its negative are one. Ranks ignore scale, shift and any other change that no ranking shows.
"""

from __future__ import annotations

import hashlib

import numpy as np

from .bench_data import BenchData, FloatArray
from .ranks import dense_ranks


class Probe:
    """Random configurations of one network.

    Args:
        bench: the network.
        count: configurations.
        seed: of the draw.
    """

    def __init__(self, bench: BenchData, count: int, seed: int = 0) -> None:
        allowed = bench.statistics.allowed
        noise = np.random.default_rng([seed, 0x5EED]).random((count, *allowed.shape))
        choices = np.argmax(np.where(allowed, noise, -1.0), axis=2)
        self._cells = choices + np.arange(allowed.shape[0]) * allowed.shape[1]

    def signature(self, table: FloatArray) -> str | None:
        """Of the order that a table [sites, formats] gives; ``None`` if it gives none, all are tied."""
        levels = dense_ranks(table.ravel().take(self._cells).sum(axis=1))
        highest = int(levels.max())
        if highest == 0:
            return None
        backwards = highest - levels
        canonical = min(levels.tolist(), backwards.tolist())
        return hashlib.sha256(np.array(canonical, dtype="<i4").tobytes()).hexdigest()[:24]


def cheapest(benches: list[BenchData]) -> int:
    """The network whose statistics are the smallest: screening there costs least."""
    return int(np.argmin([bench.statistics.offsets[-1] * len(bench.statistics.formats) for bench in benches]))
