r"""Operator-sampling weights, learned from who survives.

Every formula that is born counts once for each operator in it, and once more if it enters the population. The weight
of an operator is its rate of survival, shrunk to the mean rate of all formulas as by m = 20 formulas of that rate
(m-estimate, Cestnik 1990), relative to that mean,

.. math:: w_o = \frac{(s_o + m \bar r) / (n_o + m)}{\bar r}, \qquad \bar r = \frac{1 + \sum s}{2 + \sum n},

and at least 0.1, so that no operator dies out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ...proxies.formulas import Formula

_PRIOR = 20.0
_LEAST = 0.1


def operators(formula: Formula) -> set[str]:
    """Names of the operators in a formula."""
    return {node.name for node in formula.nodes if not node.is_input}


@dataclass
class OperatorWeights:
    """Births and survivals of formulas by operator.

    Attributes:
        born: operator -> formulas with it.
        survived: operator -> formulas with it that entered the population.
        total: formulas born.
        entered: formulas that entered the population.
    """

    born: dict[str, int] = field(default_factory=dict)
    survived: dict[str, int] = field(default_factory=dict)
    total: int = 0
    entered: int = 0

    def count(self, names: Iterable[str], survived: bool) -> None:
        """One formula was born, with these operators."""
        self.total += 1
        self.entered += survived
        for name in names:
            self.born[name] = self.born.get(name, 0) + 1
            self.survived[name] = self.survived.get(name, 0) + survived

    def weights(self) -> dict[str, float]:
        """Of every operator that occurred so far; others have the weight 1."""
        mean = (1 + self.entered) / (2 + self.total)
        return {
            name: max(_LEAST, (self.survived[name] + _PRIOR * mean) / (born + _PRIOR) / mean)
            for name, born in self.born.items()
        }
