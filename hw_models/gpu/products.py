"""Sites as matrix products: what a GPU's tables of products are asked for.

==================  =======================================================================================
linear, attention   ``m`` = batch x tokens, ``n`` = output features, ``k`` = input features
convolution         implicit GEMM: ``m`` = batch x output pixels, ``n`` = output channels, ``k`` = input channels
                    x kernel area (Chetlur et al. 2014, arXiv:1410.0759, section 3.1)
its transpose       the product before the scatter: ``m`` = batch x input pixels, ``n`` = output channels x kernel area,
                    ``k`` = input channels
grouped, depthwise  no product: a group is too narrow for matrix units
embedding           no product: a look-up
==================  =======================================================================================

Linear sites of a tie whose reason is that they read one tensor and run as one kernel (q/k/v, gate/up) are one product
over all their output features, as the runtimes of the tables run them; each member bears its share of the features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...space import SearchSpace, Site
from ..kernels import batched

#: How a site is computed.
MATRIX, IMPLICIT, GROUPED, LOOKUP = "matrix product", "implicit GEMM", "grouped convolution", "look-up"
_FUSED = "run as one kernel"  # how ``discovery`` ends the reason of a tie of siblings


@dataclass(frozen=True)
class Products:
    """The products of a space, and which site runs which.

    Attributes:
        m: int64 array [products]: rows of the input.
        n: int64 array [products]: output features.
        k: int64 array [products]: input features.
        row: int64 array [sites]: index of the site's product, -1 where it runs none.
        share: float64 array [sites]: how much of that product's time is the site's: calls x its share of ``n``.
        how: str array [sites]: ``MATRIX``, ``IMPLICIT``, ``GROUPED`` or ``LOOKUP``.
    """

    m: NDArray[np.int64]
    n: NDArray[np.int64]
    k: NDArray[np.int64]
    row: NDArray[np.int64]
    share: NDArray[np.float64]
    how: NDArray[np.str_]


def products(space: SearchSpace, batch: int = 1) -> Products:
    """The products of all sites.

    Args:
        space: traced sites.
        batch: samples per forward pass.
    """
    how = [computed_as(site) for site in space.sites]
    shapes: list[tuple[int, int, int]] = []
    row = [-1] * len(space.sites)
    share = [float(site.calls) for site in space.sites]
    for members in _kernels(space, how):
        parts = [product(space.sites[index], batch) for index in members]
        wide = sum(part[1] for part in parts)
        for index, part in zip(members, parts, strict=True):
            row[index] = len(shapes)
            share[index] *= part[1] / wide
        shapes.append((parts[0][0], wide, parts[0][2]))
    m, n, k = np.array(shapes, dtype=np.int64).reshape(-1, 3).T
    return Products(m, n, k, np.array(row, dtype=np.int64), np.array(share), np.array(how, dtype=np.str_))


def computed_as(site: Site) -> str:
    """``MATRIX``, ``IMPLICIT``, ``GROUPED`` or ``LOOKUP``."""
    if site.kind == "embedding":
        return LOOKUP
    if not site.kind.startswith("conv"):
        return MATRIX
    return IMPLICIT if int(dict(site.attributes).get("groups", 1)) == 1 else GROUPED


def product(site: Site, batch: int = 1) -> tuple[int, int, int]:
    """(m, n, k) of one call of a site that is computed as one; of attention, all projections of the packed weight."""
    entering = batched(site.input_shape, site.samples, batch)
    shape = site.weight_shape
    if site.kind.startswith("conv_transpose"):
        return math.prod(entering) // shape[0], math.prod(shape[1:]), shape[0]
    if site.kind.startswith("conv"):
        leaving = batched(site.output_shape, site.samples, batch)
        return math.prod(leaving) // shape[0], shape[0], math.prod(shape[1:])
    return math.prod(entering[:-1]), shape[site.channel_axis], shape[1 - site.channel_axis]


def _kernels(space: SearchSpace, how: list[str]) -> list[tuple[int, ...]]:
    """The sites with a product, those that run as one kernel together."""
    together = {}
    for tie, members in zip(space.ties, space.tie_indices, strict=True):
        alike = {product(space.sites[index])[::2] for index in members if how[index] == MATRIX}
        calls = {space.sites[index].calls for index in members}
        matrices = all(how[index] == MATRIX for index in members)
        if matrices and tie.reason.endswith(_FUSED) and ";" not in tie.reason and len(alike) == len(calls) == 1:
            together.update(dict.fromkeys(members, members))
    groups = [together.get(index, (index,)) for index, kind in enumerate(how) if kind in (MATRIX, IMPLICIT)]
    return list(dict.fromkeys(groups))
