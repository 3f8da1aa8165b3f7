r"""The nearest array that rises along all its axes: isotonic regression on a grid.

.. math:: \min_x \lVert x - y \rVert^2 \quad\text{with } x \text{ non-decreasing along every axis}

Along one axis the answer is closed (Barlow, Bartholomew, Bremner, Brunk 1972; the min-max formula):
x_j = max over i <= j of min over l >= j of the mean of y_i … y_l. Dykstra's alternating projections (Boyle, Dykstra
1986) join the axes; they converge to the nearest array, and what little they leave undone after a fixed number of
sweeps is mended by the mean of the smallest rising array above and the largest one below, which itself rises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

SWEEPS = 10

FloatArray = NDArray[np.float64]


def rising(values: FloatArray, sweeps: int = SWEEPS, stretches: Sequence[slice] = ()) -> FloatArray:
    """The projection.

    Args:
        values: array of any number of axes.
        sweeps: of alternating projections over the axes; the result rises whatever their number.
        stretches: runs of the first axis that cover it: it rises within each, not from one to the next. Empty: one run.

    Returns:
        Array of the same shape, non-decreasing along every axis (along the first within its stretches).
    """
    runs = [tuple(stretches) if axis == 0 and stretches else (slice(None),) for axis in range(values.ndim)]
    found = values.astype(np.float64)
    corrections = [np.zeros_like(found) for _ in range(found.ndim)]
    for _ in range(sweeps if found.ndim > 1 else 1):
        for axis in range(found.ndim):
            wanted = found + corrections[axis]
            found = _along(rising_lines, wanted, axis, runs[axis])
            corrections[axis] = wanted - found
    above, below = found, found
    for axis in range(found.ndim):
        above = _along(np.maximum.accumulate, above, axis, runs[axis])
        below = _along(_lowest_after, below, axis, runs[axis])
    return (above + below) / 2


def _along(
    function: Callable[[FloatArray], FloatArray], values: FloatArray, axis: int, runs: tuple[slice, ...]
) -> FloatArray:
    """A function of the first axis along another one, run by run."""
    first = np.moveaxis(values, axis, 0)
    return np.moveaxis(np.concatenate([function(first[run]) for run in runs]), 0, axis)


def _lowest_after(values: FloatArray) -> FloatArray:
    return np.flip(np.minimum.accumulate(np.flip(values, 0)), 0)


def rising_lines(values: FloatArray) -> FloatArray:
    """Isotonic regression along the first axis, each line by itself: O(length^2) vectorised over the lines."""
    length = len(values)
    tail = (1,) * (values.ndim - 1)
    sums = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)])
    best = np.full(values.shape, -np.inf)
    for start in range(length):
        counts = np.arange(1, length - start + 1, dtype=np.float64).reshape(-1, *tail)
        means = (sums[start + 1 :] - sums[start]) / counts
        lowest = np.flip(np.minimum.accumulate(np.flip(means, 0), axis=0), 0)
        np.maximum(best[start:], lowest, out=best[start:])
    return best
