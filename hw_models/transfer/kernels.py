r"""Covariance of log t between products: a sum of parts whose amplitudes are learned.

Shared parts tie the formats of a device together, own ones let each format differ:

=====================  ==========================================================================================
law, shared / own      parameters of the law off their prior means: phi(x)' phi(x'), phi the whitened derivatives
tables, shared / own   other coefficients of the sources' remainders: sum_s w_s e_s(x) e_s(x')
tables, local          the same, with coefficients that change over (m, n, k): times a Matern kernel of 4 octaves
likeness               shapes that err alike on the sources err alike here: Matern over the vector e(x)
likeness, near         the same among near shapes only
place                  smooth remainder over (log2 m, log2 n, log2 k): Matern 1/2 of 1, 2, 4 octaves
=====================  ==========================================================================================

Matern 1/2 is exp(-r) (Rasmussen & Williams 2006, eq. 4.18): rough, as kernels' tile choices are. A sum of positive
semidefinite parts with positive amplitudes is a covariance; so are their products (Schur).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..law import Floats
from .prior import Features

PARTS = (
    "law, shared",
    "law, own",
    "tables, shared",
    "tables, own",
    "likeness",
    "place 1",
    "place 2",
    "place 4",
    "place 1, shared",
    "place 4, shared",
    "tables, local",
    "tables, local shared",
    "likeness, near",
)
#: Length of ``likeness`` in log t, per root of the number of tables.
_LIKENESS = 0.3


def parts(one: Features, other: Features) -> NDArray[np.float64]:
    """Every part with amplitude 1: float64 [parts, rows of one, rows of other]."""
    same = (one.format[:, None] == other.format[None]).astype(np.float64)
    law = one.law @ other.law.T
    tables = (one.remainders * one.weight) @ (other.remainders * other.weight).T
    counted = max(1.0, float((one.weight > 0).sum(1).mean())) if len(one.format) else 1.0
    alike = np.exp(-_distance(one.remainders, other.remainders) / (_LIKENESS * np.sqrt(counted))) * same
    far = _distance(one.place, other.place)
    near1, near2, near4 = np.exp(-far), np.exp(-far / 2), np.exp(-far / 4)
    return np.stack(
        [
            law,
            law * same,
            tables,
            tables * same,
            alike,
            near1 * same,
            near2 * same,
            near4 * same,
            near1,
            near4,
            tables * near4 * same,
            tables * near4,
            alike * near2,
        ]
    )


def variance(features: Features, amplitudes: Floats) -> Floats:
    """Prior variance of log t, float64 [rows]: the diagonal of the covariance."""
    law = (features.law**2).sum(1)
    tables = ((features.remainders * features.weight) ** 2).sum(1)
    ones = np.ones(len(law))
    each = [law, law, tables, tables, *[ones] * 6, tables, tables, ones]
    result: Floats = amplitudes @ np.stack(each)
    return result


def _distance(one: Floats, other: Floats) -> Floats:
    """Euclidean distances [rows of one, rows of other]."""
    squared = (one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * one @ other.T
    result: Floats = np.sqrt(np.maximum(squared, 0.0))
    return result
