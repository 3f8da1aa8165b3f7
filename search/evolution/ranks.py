"""Ranks with ties, as fitness and screening use them."""

from __future__ import annotations

import numpy as np

from .bench_data import FloatArray, IntArray

_DIGITS = 12  # of the largest prediction: closer ones are tied, sums in floating point differ by their order


def dense_ranks(values: FloatArray) -> IntArray:
    """Levels from 0 upwards: [points]; values that agree to 12 digits of the largest share one."""
    scale = float(np.abs(values).max(initial=0.0))
    rounded = np.round(values / scale, _DIGITS) if scale > 0 else values
    order = np.argsort(rounded, kind="stable")
    ordered = rounded[order]
    levels = np.empty(len(values), dtype=np.int64)
    levels[order] = np.concatenate([[0], np.cumsum(ordered[1:] != ordered[:-1])])
    return levels


def average_ranks(levels: IntArray) -> FloatArray:
    """Ranks from 0 with the mean rank for ties, from dense ranks (which may have gaps): [points]."""
    counts = np.bincount(levels)
    mean = np.cumsum(counts) - (counts + 1) / 2
    ranks: FloatArray = mean[levels]
    return ranks
