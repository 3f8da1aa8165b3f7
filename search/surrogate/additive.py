r"""The additive model of a latent quality, its features and what they mean: shared by all fits.

A configuration with the columns :math:`x_g` of its tie groups has the latent value (see :mod:`.latent`)

.. math:: z(x) = a + b \log m(x), \quad m(x) = \sum_g t_{g x_g}
          + \sum_{(g,h)} \rho_{gh} \sqrt{t_{g x_g} t_{h x_h}}, \quad
          \log t_{gf} = \sum_p w_p \log s_{pgf} + \theta_{gf}, \quad
          \theta_{gf} = u_g + v_f + r_{gf}

The table t is the geometric blend of the scores :math:`s_p` of the proxies, corrected by factors
:math:`e^{\theta}`; :math:`\rho` is the correlation of the errors of two groups (the cross term of a quadratic form
whose diagonal is t). For b > 0 a smaller m is a smaller quality, whatever b: m is what the allocator minimises.

Features are the derivatives of z at a current estimate, so that all fits are linear Gaussian ones, repeated
(Gauss-Newton).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .prior import Prior

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
RANGE = 0.25  # share of differing groups over which what no table explains is alike
_LEAST = 0.1  # of the sum of t: what m is at least, however negative the correlations


@dataclass(frozen=True, eq=False)
class Additive:
    """One estimate of the parameters.

    Attributes:
        prior: scores and groups.
        intercept: a.
        slope: b, positive.
        weights: w: [proxies].
        site: u, of every group: [groups].
        format: v, of every format: [formats].
        entry: r, of every entry: [groups, formats].
        pairs: g and h of every correlation, g < h: [pairs, 2].
        correlations: rho: [pairs].
    """

    prior: Prior
    intercept: float
    slope: float
    weights: FloatArray
    site: FloatArray
    format: FloatArray
    entry: FloatArray
    pairs: IntArray
    correlations: FloatArray

    @staticmethod
    def at(prior: Prior) -> Additive:
        """What is believed before any measurement."""
        count = len(prior.proxies)
        return Additive(
            prior,
            prior.level,
            1.0,
            np.full(count, 1 / count),
            np.zeros(len(prior.groups)),
            np.zeros(prior.groups.allowed.shape[1]),
            np.zeros(prior.groups.allowed.shape),
            np.zeros((0, 2), dtype=np.int64),
            np.zeros(0),
        )

    @property
    def corrections(self) -> FloatArray:
        """Theta: [groups, formats]."""
        return self.site[:, None] + self.format + self.entry

    def log_table(self) -> FloatArray:
        """Log t: [groups, formats]."""
        logs: FloatArray = np.tensordot(self.weights, self.prior.logs, 1) + self.corrections
        return logs

    def parts(self, genes: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Terms of the sum and of the pairs, and m: [n, groups], [n, pairs] (without rho), [n]."""
        terms = np.exp(self.log_table())[np.arange(genes.shape[1]), genes]
        products = np.sqrt(terms[:, self.pairs[:, 0]] * terms[:, self.pairs[:, 1]])
        total = terms.sum(axis=1)
        return terms, products, np.maximum(total + products @ self.correlations, _LEAST * total)

    def log_sum(self, genes: IntArray) -> FloatArray:
        """Log m of columns by group [n, groups]: [n]."""
        logs: FloatArray = np.log(self.parts(genes)[2])
        return logs

    def predict(self, genes: IntArray) -> FloatArray:
        """Latent values of columns by group [n, groups]: [n]."""
        values: FloatArray = self.intercept + self.slope * self.log_sum(genes)
        return values

    def with_pairs(self, pairs: IntArray) -> Additive:
        """The same with other pairs [pairs, 2], not correlated."""
        return replace(self, pairs=pairs, correlations=np.zeros(len(pairs)))

    def with_table(self, log_table: FloatArray) -> Additive:
        """The same with another table [groups, formats] in logs."""
        return replace(self, entry=self.entry + log_table - self.log_table())


@dataclass(frozen=True, eq=False)
class Features:
    """Derivatives of z at an estimate, for n configurations, without the factor b.

    Attributes:
        logs: of the slope, log m: [n].
        shares: of a correction of the group, whatever the format: [n, groups].
        by_format: of a correction of the format, whatever the group: [n, formats].
        weights: of the weights of proxies: [n, proxies].
        pairs: of the correlations: [n, pairs].
        genes: the columns: [n, groups].
    """

    logs: FloatArray
    shares: FloatArray
    by_format: FloatArray
    weights: FloatArray
    pairs: FloatArray
    genes: IntArray

    @staticmethod
    def of(model: Additive, genes: IntArray) -> Features:
        """The features of columns by group [n, groups]."""
        terms, products, total = model.parts(genes)
        effect = terms.copy()
        half = 0.5 * products * model.correlations
        for side in (0, 1):
            np.add.at(effect.T, model.pairs[:, side], half.T)
        shares = effect / total[:, None]
        formats = model.prior.logs.shape[2]
        by_format = np.stack([np.where(genes == column, shares, 0.0).sum(axis=1) for column in range(formats)], axis=1)
        logs = model.prior.logs[:, np.arange(genes.shape[1]), genes]
        weights = np.einsum("ng,png->np", shares, logs)
        return Features(np.log(total), shares, by_format, weights, products / total[:, None], genes)

    def covariances(self, other: Features) -> dict[str, FloatArray]:
        """Covariances of corrections of unit variance between two sets: by kind, [n, m].

        ``site``: one factor for a group, ``format``: one for a format, ``entry``: one for every entry of the table.
        """
        pairs = zip(self.split(), other.split(), strict=True)
        entry = sum((one @ two.T for one, two in pairs), start=np.zeros((len(self.logs), len(other.logs))))
        return {
            "site": self.shares @ other.shares.T,
            "format": self.by_format @ other.by_format.T,
            "entry": entry,
        }

    def similarity(self, other: Features) -> FloatArray:
        """exp(-d / RANGE), d the share of groups in which two configurations differ: [n, m]."""
        groups, formats = self.genes.shape[1], self.by_format.shape[1]
        same = sum(
            (self.genes == column).astype(np.float64) @ (other.genes == column).astype(np.float64).T
            for column in range(formats)
        )
        close: FloatArray = np.exp((same / groups - 1) / RANGE)
        return close

    def split(self) -> list[FloatArray]:
        """The shares by format: for every format [n, groups], 0 where a group has another."""
        return [np.where(self.genes == column, self.shares, 0.0) for column in range(self.by_format.shape[1])]

    def entries(self) -> FloatArray:
        """Derivatives by entry of the table: [n, groups, formats]."""
        return np.stack(self.split(), axis=2)
