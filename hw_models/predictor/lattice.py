"""Lattice: a function of (m, n, k) on a grid, multilinear in the logarithms in between.

Multilinear interpolation of values that rise along the axes rises in every argument: monotone values give a monotone
function. One look-up costs eight reads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..gemm import Gemms

FloatArray = NDArray[np.float64]

#: Most points of an axis; a table with more values is laid on quantiles of them.
MOST = (96, 48, 48)
#: Ratio of neighbouring lines from which ``Axes.finer`` puts one in between.
WIDE = 1.2


@dataclass(frozen=True)
class Axes:
    """The grid: rising sizes of m, n and k.

    Attributes:
        m: float64 array [M].
        n: float64 array [N].
        k: float64 array [K].
    """

    m: FloatArray
    n: FloatArray
    k: FloatArray

    @staticmethod
    def of(m: NDArray[np.int64], n: NDArray[np.int64], k: NDArray[np.int64]) -> Axes:
        """The values that occur, thinned to ``MOST`` where there are more."""
        return Axes(*(_thinned(np.unique(side), most) for side, most in zip((m, n, k), MOST, strict=True)))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Points along m, n and k."""
        return len(self.m), len(self.n), len(self.k)

    def finer(self) -> Axes:
        """One more line in each gap of at least a fifth: near its geometric middle, where tiles are full."""
        return Axes(*(_finer(axis) for axis in (self.m, self.n, self.k)))

    def points(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """m, n, k of every grid point in C order, int64 arrays [M * N * K]."""
        m, n, k = (grid.ravel().astype(np.int64) for grid in np.meshgrid(self.m, self.n, self.k, indexing="ij"))
        return m, n, k

    def on_grid(self, m: NDArray[np.int64], n: NDArray[np.int64], k: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which products lie on grid points."""
        return np.isin(m, self.m) & np.isin(n, self.n) & np.isin(k, self.k)

    def corners(self, m: FloatArray, n: FloatArray, k: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
        """The grid points around each product (clamped to the grid) and their weights: arrays [rows, 8]."""
        low, high, share = zip(
            *(_around(axis, side) for axis, side in zip((self.m, self.n, self.k), (m, n, k), strict=True)), strict=True
        )
        _, across, deep = self.shape
        indices, weights = [], []
        for corner in np.ndindex(2, 2, 2):
            at = [(high if bit else low)[axis] for axis, bit in enumerate(corner)]
            part = [share[axis] if bit else 1 - share[axis] for axis, bit in enumerate(corner)]
            indices.append((at[0] * across + at[1]) * deep + at[2])
            weights.append(part[0] * part[1] * part[2])
        return np.stack(indices, axis=1), np.stack(weights, axis=1)

    def to(self, gemms: Gemms) -> sparse.csr_array:
        """Interpolation from the grid to products as a sparse matrix [rows, M * N * K]."""
        m, n, k = (side.astype(np.float64) for side in (gemms.m, gemms.n, gemms.k))
        indices, weights = self.corners(m, n, k)
        used = weights > 0  # a missing value next to a product on the grid must not reach it
        start = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
        size = int(np.prod(self.shape))
        return sparse.csr_array((weights[used], indices[used], start), shape=(len(gemms), size))


def _thinned(values: NDArray[np.int64], most: int) -> FloatArray:
    if len(values) > most:
        values = values[np.unique(np.linspace(0, len(values) - 1, most).round().astype(np.int64))]
    return values.astype(np.float64)


def _finer(axis: FloatArray) -> FloatArray:
    """A line more in each wide gap: the multiple of a power of two (an eighth, at least 16) nearest its middle."""
    low, high = axis[:-1], axis[1:]
    step = np.maximum(16.0, 2.0 ** np.floor(np.log2(low / 8)))
    middle = np.round(np.sqrt(low * high) / step) * step
    wide = (high / low > WIDE) & (middle > low) & (middle < high)
    return np.union1d(axis, middle[wide])


def _around(axis: FloatArray, values: FloatArray) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
    """Index of the grid line below and above, and how far in between (in the logarithm)."""
    inside = np.clip(values, axis[0], axis[-1])
    low = np.clip(np.searchsorted(axis, inside, side="right") - 1, 0, max(len(axis) - 2, 0))
    high = np.minimum(low + 1, len(axis) - 1)
    gap = np.log(axis[high] / axis[low])
    share = np.where(gap > 0, np.log(inside / axis[low]) / np.where(gap > 0, gap, 1.0), 0.0)
    return low, high, share
