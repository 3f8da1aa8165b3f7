r"""Means of random estimates over fixed strata, each with its own number of draws.

Every stratum n (a calibration sample, or a micro-batch) has its own value :math:`\mu_n`, wanted is their mean; k draws
of each, independent between strata, give

.. math:: \hat\mu = \frac1N \sum_n \bar x_n, \qquad
          \operatorname{SE}^2 = \frac1{N^2} \sum_n \Bigl(1 - \frac kD\Bigr) \frac{S_n^2}{k}

with :math:`S_n^2` the variance of the draws within the stratum: differences between samples are no error of the mean
over just these samples. D is the size of the population where draws are made without replacement, else infinite
(Cochran 1977, Sampling Techniques, eq. 5.7).
"""

from __future__ import annotations

import numpy as np


class Stratified:
    """Running sums of draws.

    Args:
        strata: N.
        quantities: shape of what is estimated at once; each has its own number of draws.
    """

    def __init__(self, strata: int, quantities: tuple[int, ...]) -> None:
        self.draws = np.zeros(quantities, dtype=np.int64)
        self.population = np.full(quantities, np.inf)
        self._sum = np.zeros((strata, *quantities))
        self._deviation = np.zeros((strata, *quantities))  # sum of squared deviations from the mean (Welford)

    def add(self, values: np.ndarray, which: np.ndarray) -> None:
        """Add one draw of every stratum.

        Args:
            values: [strata, *quantities].
            which: bool [*quantities]: those drawn.
        """
        before = np.maximum(self.draws, 1)
        offset = values - self._sum / before
        share = np.where(which & (self.draws > 0), self.draws / (self.draws + 1), 0.0)
        self._deviation += share * np.where(which, offset, 0.0) ** 2
        self._sum += np.where(which, values, 0.0)
        self.draws = self.draws + which

    @property
    def mean(self) -> np.ndarray:
        """[*quantities]; 0 where nothing was drawn."""
        mean: np.ndarray = self._sum.mean(0) / np.maximum(self.draws, 1)
        return mean

    @property
    def error(self) -> np.ndarray:
        """Standard errors [*quantities]; infinite with a single draw, 0 where nothing was drawn."""
        within = self._deviation.sum(0) / np.maximum(self.draws - 1, 1) / np.maximum(self.draws, 1)
        left = np.clip(1 - self.draws / self.population, 0, None)
        error = np.sqrt(within * left) / len(self._sum)
        return np.where((self.draws == 1) & (left > 0), np.inf, error)
