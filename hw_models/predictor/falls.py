"""Where measured times really fall along m: between which sizes a monotone predictor would contradict its table.

A kernel library picks other kernels for other m: on an H200 an fp8_block product of 33 rows is slower than one of 48
in nearly all weight shapes. Noise falls too, but one weight shape says nothing of the next. A step from one measured m
to the next is called a fall where the OTHER weight shapes foretell it and the measurement confirms it.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..gemm import Gemms
from .trend import Trend

FloatArray = NDArray[np.float64]

#: A foretold step of log t below minus this is one that falls.
STEP = 0.02
#: Share of the weight shapes in which a fall must be foretold, and of those the share in which it must be measured.
FORETOLD, CONFIRMED = 0.05, 0.65


def falls(trend: Trend, device: str, format_: str) -> FloatArray:
    """The pairs of neighbouring sizes of m between which time falls, float64 array [falls, 2]."""
    kriging = trend.kriging
    lines, shapes = len(kriging.lines), len(kriging.n)
    rows = lines * shapes
    points = Gemms(
        np.full(rows, device),
        np.full(rows, format_),
        np.tile(kriging.lines.astype(np.int64), shapes),
        np.repeat(kriging.n, lines),
        np.repeat(kriging.k, lines),
    )
    law = trend.law(points).reshape(shapes, lines)
    foretold = np.diff(law + kriging.left_out, axis=1) < -STEP
    measured = np.diff(law + kriging.values, axis=1) < 0
    count = foretold.sum(axis=0)
    # noise confirms a half; in few shapes that must be exceeded by two standard deviations
    confirmed = (foretold & measured).sum(axis=0) >= np.maximum(CONFIRMED * count, count / 2 + np.sqrt(count))
    at = np.flatnonzero((foretold.mean(axis=0) >= FORETOLD) & confirmed)
    return np.stack([kriging.lines[at], kriging.lines[at + 1]], axis=1)


def stretches(lines: FloatArray, fallen: FloatArray) -> tuple[slice, ...]:
    """The runs of grid lines of m that no fall lies between; a line inside a fall is one by itself."""
    gap = np.zeros(len(lines) - 1, dtype=bool)
    for low, high in fallen:
        gap |= (lines[:-1] < high) & (lines[1:] > low)
    ends = [0, *(np.flatnonzero(gap) + 1).tolist(), len(lines)]
    return tuple(slice(start, end) for start, end in pairwise(ends))
