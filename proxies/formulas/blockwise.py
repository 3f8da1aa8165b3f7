r"""Operators over the elements of a site: norms, means, normalisations, matrix products.

A site's block is a sample of its weight, so each operator estimates what it would give on the whole weight of n
elements, from the m drawn ones: a sum is the mean of the drawn elements times n, and a softmax divides by the estimated
sum over the whole weight. A number per site is a block of one element that stands for n equal ones. Sums run in
float64.

The operators are those of EMQ (Dong et al. 2023, arXiv:2307.10554, appendix), the spread of the elements, and the
cosine of EZNAS (Akhauri et al. 2022, arXiv:2209.07413).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .elementwise import EPSILON

Array = NDArray[Any]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Blocks:
    """How elements lie in the last axis, one site after the other.

    Attributes:
        counts: int64 [sites], elements of each block, at least 1; their sum is n.
        whole: float64 [sites], elements of the whole weight.
    """

    counts: NDArray[np.int64]
    whole: Float64

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each block begins: [sites]."""
        return np.concatenate([[0], np.cumsum(self.counts)[:-1]]).astype(np.int64)

    @cached_property
    def single(self) -> bool:
        """Whether every block is a single number."""
        return bool((self.counts == 1).all())

    def sum(self, x: Array) -> Float64:
        """[..., n] -> [..., sites]."""
        if self.single:
            return x.astype(np.float64, copy=False)
        total: Float64 = np.add.reduceat(x, self.starts, axis=-1, dtype=np.float64)
        return total

    def mean(self, x: Array) -> Float64:
        """[..., n] -> [..., sites]."""
        return self.sum(x) / self.counts

    def largest(self, x: Array) -> Array:
        """[..., n] -> [..., sites]."""
        found: Array = np.maximum.reduceat(x, self.starts, axis=-1)
        return found

    def smallest(self, x: Array) -> Array:
        """[..., n] -> [..., sites]."""
        found: Array = np.minimum.reduceat(x, self.starts, axis=-1)
        return found

    def spread(self, values: Array, dtype: np.dtype[Any]) -> Array:
        """A number per site repeated for each of its elements: [..., sites] -> [..., n]."""
        cast = values.astype(dtype, copy=False)
        return cast if self.single else np.repeat(cast, self.counts, axis=-1)


def variance(x: Array, blocks: Blocks) -> Float64:
    """Mean square of the distance from the mean."""
    return blocks.mean(np.square(_centred(x, blocks)))


def frobenius(x: Array, blocks: Blocks) -> Float64:
    """Root of n times the mean square."""
    norm: Float64 = np.sqrt(blocks.whole * blocks.mean(np.square(x)))
    return norm


AGGREGATES: dict[str, Callable[[Array, Blocks], Float64]] = {
    "deviation": lambda x, blocks: np.sqrt(variance(x, blocks)),
    "frobenius": frobenius,
    "l1_norm": lambda x, blocks: blocks.whole * blocks.mean(np.abs(x)),
    "max": lambda x, blocks: blocks.largest(x).astype(np.float64),
    "mean": lambda x, blocks: blocks.mean(x),
    "min": lambda x, blocks: blocks.smallest(x).astype(np.float64),
    "sum": lambda x, blocks: blocks.whole * blocks.mean(x),
    "variance": variance,
}
"""Name -> [..., n] to [..., sites]: mean, variance and deviation, smallest and largest drawn element; sum, l1_norm
(sum of sizes) and frobenius (root of the sum of squares) scaled to the whole weight."""


def normalise(x: Array, blocks: Blocks) -> Array:
    """(x - mean) / max(deviation, 1e-12)."""
    centred = _centred(x, blocks)
    deviation = np.sqrt(blocks.mean(np.square(centred)))
    return centred / blocks.spread(np.maximum(deviation, EPSILON), x.dtype)


def min_max(x: Array, blocks: Blocks) -> Array:
    """(x - min) / max(max - min, 1e-12)."""
    least = blocks.smallest(x)
    extent = np.maximum(blocks.largest(x) - least, x.dtype.type(EPSILON))
    return (x - blocks.spread(least, x.dtype)) / blocks.spread(extent, x.dtype)


def unit(x: Array, blocks: Blocks) -> Array:
    """Divided by max(Frobenius norm, 1e-12)."""
    return x / blocks.spread(np.maximum(frobenius(x, blocks), EPSILON), x.dtype)


def softmax(x: Array, blocks: Blocks) -> Array:
    """exp(x) over its sum; with x less its largest first, so that nothing overflows."""
    powers: Array = np.exp(x - blocks.spread(blocks.largest(x), x.dtype))
    return powers / blocks.spread(blocks.whole * blocks.mean(powers), x.dtype)


def log_softmax(x: Array, blocks: Blocks) -> Array:
    """Less the logarithm of the sum of exp(x)."""
    shifted = x - blocks.spread(blocks.largest(x), x.dtype)
    return shifted - blocks.spread(np.log(blocks.whole * blocks.mean(np.exp(shifted))), x.dtype)


NORMALISATIONS: dict[str, Callable[[Array, Blocks], Array]] = {
    "log_softmax": log_softmax,
    "min_max": min_max,
    "normalise": normalise,
    "softmax": softmax,
    "unit": unit,
}
"""Name -> [..., n] to [..., n], each site for itself."""


def relative(x: Array, blocks: Blocks, shares: Float64) -> Array:
    """Divided by the mean size in the model (at least 1e-12), a positive number, the same for all sites and formats.

    Args:
        x: [rows, n].
        blocks: of the n elements.
        shares: float64 [rows, sites], weight of each in the mean, sum 1.
    """
    sizes = np.where(shares > 0, blocks.mean(np.abs(x)), 0.0)
    usual = max(float((shares * sizes).sum()), EPSILON)
    found: Array = x / x.dtype.type(usual)
    return found


def cosine(x: Array, y: Array, blocks: Blocks) -> Float64:
    """Cosine of the angle between two tensors; 0 where the product of their root mean squares is below 1e-24."""
    norms = np.sqrt(blocks.mean(np.square(x)) * blocks.mean(np.square(y)))
    return np.where(norms > EPSILON**2, blocks.mean(x * y) / np.maximum(norms, EPSILON**2), 0.0)


def matrix_product(x: Array, y: Array, shapes: NDArray[np.int64]) -> Array:
    """A Bᵀ of every site, the blocks as matrices [rows, columns], summed in float64; sites of one shape at once.

    Args:
        x: [groups or 1, n].
        y: [groups or 1, n].
        shapes: int64 [sites, 2].

    Returns:
        [groups, sum of rows²], the products one after the other; the type of x.
    """
    counts, squares = shapes.prod(axis=1), shapes[:, 0] ** 2
    starts, ends = np.cumsum(counts) - counts, np.cumsum(squares) - squares
    groups = max(len(x), len(y))
    product = np.empty((groups, int(squares.sum())), dtype=x.dtype)
    for rows, columns in np.unique(shapes, axis=0):
        alike = np.flatnonzero((shapes == (rows, columns)).all(axis=1))
        taken = starts[alike][:, None] + np.arange(rows * columns)
        left, right = (
            side[:, taken].reshape(len(side), len(alike), rows, columns).astype(np.float64) for side in (x, y)
        )
        placed = ends[alike][:, None] + np.arange(rows * rows)
        product[:, placed] = (left @ right.swapaxes(-1, -2)).reshape(groups, len(alike), rows * rows)
    return product


def _centred(x: Array, blocks: Blocks) -> Array:
    return x - blocks.spread(blocks.mean(x), x.dtype)
