r"""How alike architectures are: the covariance of what is unknown about them.

.. math:: k(a, b) = w_1 \frac{\langle \phi_a, \phi_b \rangle}{p} + w_2\, \frac{1}{d} \sum_{j=1}^{d} [a_j = b_j]
          + w_3 [a = b]

with :math:`\phi` p numbers that describe an architecture (logs of prices, standardized), and d the dimensions of all
architectures together; one that an architecture lacks (the kernel of a block that is skipped) has an answer of its own.
The first two terms are linear models in the numbers and in the one-hot answers with independent normal weights
(Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, section 2.1), the third is what each architecture
has for itself. The weights add up to 1, so a typical variance is 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...architecture import Choices

FloatArray = NDArray[np.float64]
_NUMBERS, _ANSWERS, _OWN = 0.5, 0.35, 0.15


@dataclass(frozen=True, eq=False)
class ArchitectureKernel:
    """Architectures and their covariance.

    Attributes:
        index: row of each architecture.
        values: float64 [n, n].
    """

    index: Mapping[Choices, int]
    values: FloatArray = field(repr=False)

    @staticmethod
    def of(numbers: Mapping[Choices, FloatArray]) -> ArchitectureKernel:
        """From the numbers of every architecture: float64 [p] each, p at least 1."""
        names = sorted({name for choices in numbers for name in choices})
        codes: dict[tuple[str, object], int] = {}
        answers = np.array(
            [[codes.setdefault((name, choices.get(name)), len(codes)) for name in names] for choices in numbers],
            dtype=np.int64,
        ).reshape(len(numbers), len(names))
        same = np.zeros((len(numbers), len(numbers)))
        for column in answers.T:
            same += column[:, None] == column[None, :]
        table = np.array(list(numbers.values()), dtype=np.float64).reshape(len(numbers), -1)
        deviation = table.std(axis=0)
        table = (table - table.mean(axis=0)) / np.where(deviation > 1e-12, deviation, 1.0)
        values = _NUMBERS * table @ table.T / table.shape[1] + _ANSWERS * same / max(1, len(names))
        index = {choices: row for row, choices in enumerate(numbers)}
        return ArchitectureKernel(index, values + _OWN * np.eye(len(numbers)))

    def rows(self, choices: list[Choices]) -> NDArray[np.int64]:
        """Their rows."""
        return np.array([self.index[each] for each in choices], dtype=np.int64)
