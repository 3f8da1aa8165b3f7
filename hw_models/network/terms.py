r"""Terms: what a configuration's latency is made of, each part an estimate in milliseconds that can be scaled.

.. math::
    x_f(c) = u^0_f + \sum_i u_f[i, c_i] + \sum_{(i, j)} p_f[(i, j), k_i, k_j]
             + \sum_i a_f[i]\,[\,i\ \text{unfused in}\ c\,]

where :math:`c_i` is the format of site i and :math:`k_i` the kind of kernel that it runs, the pairs are the edges of
the ``SiteGraph``, and an integer convolution is unfused where something reads its output that does not round it.
The latency is :math:`\sum_f \theta_f x_f(c)`; ``theta`` is 1 as long as no whole model was measured (``residual``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Kinds of kernels. ``half``: float on an input cast to 16 bits; ``rounded``: float on an input rounded to 8 bits.
KINDS = ("float", "half", "rounded", "integer")
FLOAT, HALF, ROUNDED, INTEGER = range(4)

#: The parts that latency is made of.
PARTS = (
    "other operators",
    "float kernels",
    "half kernels",
    "rounded kernels",
    "integer kernels",
    "layout conversions",
    "code conversions",
    "unfused products",
    "float in place of integer",
)
OTHER, LAYOUT, CODES, UNFUSED, FALLBACK = 0, 5, 6, 7, 8
#: Part of the kernels of each kind.
KERNELS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Terms:
    """The parts of the latency of every configuration of a space.

    Attributes:
        constant: float64 array [parts]: what no format changes.
        unary: [parts, sites, formats]; 0 where a site does not offer the format.
        kinds: int64 [sites, formats]: index into ``KINDS``.
        edges: int64 [edges, 2]: source site, reading site.
        pair: [parts, edges, kinds, kinds]: kind of the source, kind of the reader.
        readers: int64 [readers, 2]: source site, and a site that reads its output directly.
        leaks: boolean [sites]: whether something that is no site reads the output too.
        unfused: [parts, sites]: paid by an integer kernel unless every reader rounds its output.
    """

    constant: NDArray[np.float64]
    unary: NDArray[np.float64]
    kinds: NDArray[np.int64]
    edges: NDArray[np.int64]
    pair: NDArray[np.float64]
    readers: NDArray[np.int64]
    leaks: NDArray[np.bool_]
    unfused: NDArray[np.float64]

    def of(self, choices: NDArray[np.int64]) -> NDArray[np.float64]:
        """The parts of many configurations: int64 [points, sites] -> float64 [points, parts], in milliseconds."""
        sites = np.arange(choices.shape[1])
        kinds = self.kinds[sites, choices]
        parts = self.constant + self.unary[:, sites, choices].sum(axis=2).T
        if len(self.edges):
            edge = np.arange(len(self.edges))
            source, reader = (kinds[:, self.edges[:, side]] for side in (0, 1))
            parts = parts + self.pair[:, edge, source, reader].sum(axis=2).T
        alone = (kinds == INTEGER) & (self.leaks | self._read_as_floats(kinds))
        return np.asarray(parts + alone @ self.unfused.T, dtype=np.float64)

    def additive(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Array [sites, formats]: what each site costs between neighbours of its own kind.

        ``theta @ constant`` plus one entry per site is exactly ``theta @ of(...)`` where all sites run one kind.
        """
        by_site = np.zeros((len(self.kinds), len(self.constant), len(KINDS)))
        np.add.at(by_site, self.edges[:, 1], np.diagonal(self.pair, axis1=2, axis2=3).swapaxes(0, 1))
        alike = by_site.swapaxes(0, 1)
        alike[:, :, INTEGER] += np.where(self.leaks, self.unfused, 0.0)
        sites = np.arange(len(self.kinds))[:, None]
        return np.asarray(np.tensordot(theta, self.unary + alike[:, sites, self.kinds], axes=1), dtype=np.float64)

    def _read_as_floats(self, kinds: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Boolean [points, sites]: whether a site that does not round its input reads the output directly."""
        found = np.zeros(kinds.shape[::-1], np.int64)
        np.add.at(found, self.readers[:, 0], (kinds[:, self.readers[:, 1]] < ROUNDED).T)
        return np.asarray(found.T > 0, dtype=np.bool_)
