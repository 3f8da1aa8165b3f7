r"""Interactions: the correlations of few pairs of groups that would explain most of what the table leaves unexplained.

The errors of two groups add up to more, or less, than each alone where their effects on the output correlate. With
:math:`\rho_{gh} \sim N(0, \tau_p^2)` and the model of :mod:`.additive`, the posterior mean of every correlation, given
the table, is :math:`\tau_p^2 b J_{gh}^T K^{-1} r`, and the squared mean over its prior variance is (twice) the gain in
log posterior density that it alone brings at first order. The pairs with the largest gain are kept; a bounded number,
because the allocator pays for each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .additive import Additive, Features
from .table import TableFit

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
MOST = 16  # pairs


def chosen_pairs(fit: TableFit, most: int = MOST) -> IntArray:
    """The pairs of groups worth a correlation.

    Args:
        fit: a table without pairs.
        most: how many at most; never more than a quarter of the points.

    Returns:
        (g, h), g < h, by falling gain: [pairs, 2].
    """
    groups = len(fit.model.prior.groups)
    every = np.stack(np.triu_indices(groups, 1), axis=1).astype(np.int64)
    model = fit.model.with_pairs(every)
    jacobian = fit.model.slope * Features.of(model, fit.features.genes).pairs
    score = jacobian.T @ fit.gaussian.alpha
    information = np.einsum("np,nm,mp->p", jacobian, fit.gaussian.inverse, jacobian, optimize=True)
    variance = fit.scales.pair**2
    gain = score**2 * variance / (1 + variance * information)
    count = min(most, len(fit.latent) // 4, len(every))
    kept: IntArray = every[np.argsort(-gain, kind="stable")[:count]]
    return kept


def pair_tables(model: Additive, log_table: FloatArray) -> dict[tuple[int, int], FloatArray]:
    """What pairs cost beyond the sum of a table by group.

    Args:
        model: with pairs and correlations.
        log_table: by group: [groups, formats].

    Returns:
        First sites of the two groups -> [formats, formats]; 0 where not offered.
    """
    groups = model.prior.groups
    roots = np.where(groups.allowed, np.exp(0.5 * log_table), 0.0)
    tables = {}
    for (one, other), correlation in zip(model.pairs.tolist(), model.correlations.tolist(), strict=True):
        tables[groups.sites[one][0], groups.sites[other][0]] = correlation * np.outer(roots[one], roots[other])
    return tables
