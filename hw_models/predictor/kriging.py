r"""What the law leaves at a weight shape, from what it leaves at others: simple kriging over (log n, log k).

With R [shapes, lines of m] the logarithm of measured over the law, and the covariance of an Ornstein-Uhlenbeck sheet
and a nugget,

.. math:: K_{ij} = e^{-(|\Delta \log_2 n| + |\Delta \log_2 k|) / \ell} + \nu \delta_{ij},\quad
          \hat R = \mu + k^T K^{-1} (R - \mu)

(Krige 1951; Rasmussen and Williams 2006, section 2.2) with mu the median of each line. All lines of m share the shapes,
hence one inverse serves them all, and what the OTHER shapes say of each is closed (Dubrule 1983):

.. math:: \hat R_{-i} = R_i - [K^{-1}(R - \mu)]_i / [K^{-1}]_{ii}

The nugget is the one with the least error of that. Deviations beyond ``CLIP`` times their usual size are drawn in and
the rest is done again, so that one stalled measurement does not reach its neighbours (Huber 1964).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..gemm import Gemms

FloatArray = NDArray[np.float64]

#: Octaves over which the remainder of the law is alike.
LENGTH = 4.0
NUGGETS = (0.01, 0.03, 0.1, 0.3)
#: Deviations of a shape from its neighbours, in their usual size, that count.
CLIP = 3.0
_ROUNDS = 2
#: Most weight shapes that are kriged: the inverse costs their cube.
MOST_SHAPES = 1500


@dataclass(frozen=True)
class Kriging:
    """A fitted sheet.

    Attributes:
        lines: float64 array [M]: sizes of m.
        n: int64 array [S], k: int64 array [S]: the weight shapes, in the order of ``shape_codes``.
        mean: float64 array [M].
        values: float64 array [S, M]: the remainder of each shape.
        weights: float64 array [S, M]: what the covariance is multiplied with.
        left_out: float64 array [S, M]: what the others say of each shape.
        nugget: relative variance of what neighbours do not share.
    """

    lines: FloatArray
    n: NDArray[np.int64]
    k: NDArray[np.int64]
    mean: FloatArray
    values: FloatArray
    weights: FloatArray
    left_out: FloatArray
    nugget: float

    @staticmethod
    def of(rows: Gemms, remainder: FloatArray, lines: FloatArray) -> Kriging:
        """Fit to measured products.

        Args:
            rows: the products; a shape that lacks a line of m has it from its own nearest sizes of m.
            remainder: logarithm of measured over the law [rows].
            lines: sizes of m, rising.
        """
        codes = np.unique(shape_codes(rows))
        if len(codes) > MOST_SHAPES:
            codes = np.sort(np.random.default_rng(0).permutation(codes)[:MOST_SHAPES])
        n, k = codes >> 32, codes & (2**32 - 1)
        values = _on_lines(rows, remainder, lines, codes)
        covariance = _covariance(n, k, n, k)
        fits = [_solved(covariance, values, nugget) for nugget in NUGGETS]
        best = int(np.argmin([np.abs(left_out - values).mean() for _, _, left_out in fits]))
        mean, weights, left_out = fits[best]
        return Kriging(lines, n, k, mean, values, weights, left_out, NUGGETS[best])

    def at(self, gemms: Gemms) -> FloatArray:
        """The remainder of any products, float64 array [rows]; between lines of m linear in log m."""
        codes, shape = np.unique(shape_codes(gemms), return_inverse=True)
        here = _covariance(codes >> 32, codes & (2**32 - 1), self.n, self.k)
        return self._between(self.mean + here @ self.weights, shape.ravel(), gemms.m)

    def without_own(self, rows: Gemms) -> FloatArray:
        """The remainder of the measured products, each from all shapes but its own: float64 array [rows]."""
        found, known = self.at(rows), (self.n << 32) | self.k
        at = np.minimum(np.searchsorted(known, shape_codes(rows)), len(known) - 1)
        fitted = known[at] == shape_codes(rows)
        found[fitted] = self._between(self.left_out, at[fitted], rows.m[fitted])
        return found

    def _between(self, values: FloatArray, shape: NDArray[np.int64], m: NDArray[np.int64]) -> FloatArray:
        position, wanted = np.log(self.lines), np.log(np.clip(m, self.lines[0], self.lines[-1]))
        high = np.clip(np.searchsorted(position, wanted), 1, max(len(position) - 1, 1)) % len(position)
        low = np.maximum(high - 1, 0)
        gap = position[high] - position[low]
        share = (wanted - position[low]) / np.where(gap > 0, gap, 1.0)
        return np.asarray((1 - share) * values[shape, low] + share * values[shape, high])


def shape_codes(gemms: Gemms) -> NDArray[np.int64]:
    """One number for the weight shape (n, k) of each product, int64 array [rows]."""
    return np.asarray((gemms.n.astype(np.int64) << 32) | gemms.k.astype(np.int64))


def _covariance(
    n: NDArray[np.int64], k: NDArray[np.int64], other_n: NDArray[np.int64], other_k: NDArray[np.int64]
) -> FloatArray:
    apart = np.abs(np.log2(n)[:, None] - np.log2(other_n)) + np.abs(np.log2(k)[:, None] - np.log2(other_k))
    return np.asarray(np.exp(-apart / LENGTH))


def _on_lines(rows: Gemms, remainder: FloatArray, lines: FloatArray, codes: NDArray[np.int64]) -> FloatArray:
    """The remainder of each shape on the lines of m, linear in log m between the shape's own sizes: [S, M]."""
    mine = shape_codes(rows)
    order = np.lexsort([rows.m, mine])
    starts, ends = (np.searchsorted(mine[order], codes, side=side) for side in ("left", "right"))
    values = np.empty((len(codes), len(lines)))
    for shape, (start, end) in enumerate(zip(starts, ends, strict=True)):
        at = order[start:end]
        m, first, count = np.unique(rows.m[at], return_index=True, return_counts=True)
        values[shape] = np.interp(np.log(lines), np.log(m), np.add.reduceat(remainder[at], first) / count)
    return values


def _solved(covariance: FloatArray, values: FloatArray, nugget: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean, weights, and what the other shapes say of each."""
    inverse = np.linalg.inv(covariance + nugget * np.eye(len(covariance)))
    own = np.diag(inverse)[:, None]
    drawn = values
    for turn in range(_ROUNDS + 1):
        mean = np.median(drawn, axis=0)
        weights = inverse @ (drawn - mean)
        left_out = drawn - weights / own
        if turn < _ROUNDS:
            deviation = values - left_out
            usual = CLIP * np.median(np.abs(deviation)) / 0.6745
            drawn = left_out + np.clip(deviation, -usual, usual)
    return mean, weights, left_out
