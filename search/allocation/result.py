"""What an allocation is: the chosen configuration with its certificate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

OPTIMAL = "optimal"
"""Nothing that meets the budgets has a smaller objective (up to the rounding error of a float64 sum)."""
TIME_LIMIT = "time_limit"
"""The time was up: the incumbent meets the budgets, `bound` and `gap` say how far it can be from the optimum."""
GAP_REACHED = "gap_reached"
"""The search stopped because the proven gap was at most what was asked for."""


@dataclass(frozen=True, eq=False)
class Allocation:
    """One choice per site, with a proof of how good it is.

    Args:
        choice: Index of the chosen column for every site, shape [sites].
        objective: Sum of the losses of the chosen entries (correctly rounded, `math.fsum`).
        bound: No configuration that meets the budgets has an objective below this.
        gap: `(objective - bound) / |objective|`; 0 if both are equal.
        status: "optimal", "gap_reached" or "time_limit".
        seconds: Wall-clock time of the whole call.
        costs: Sum of every cost over the sites (for peak rows, the maximum over the steps).
        details: What else is known: the method, how many choices the reductions removed, repairs, loss terms.
    """

    choice: NDArray[np.integer[Any]]
    objective: float
    bound: float
    gap: float
    status: str
    seconds: float
    costs: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, eq=False)
class Answer:
    """What a solver knows of a problem over groups.

    Args:
        picked: Best configuration found, choice per group; None if none was found.
        objective: Its loss, correctly rounded (infinity without one).
        bound: No feasible configuration has a smaller loss; infinity if none exists.
        complete: `picked` is optimal (or, without one, nothing is feasible).
        details: How it was solved.
    """

    picked: NDArray[np.integer[Any]] | None
    objective: float
    bound: float
    complete: bool
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def infeasible(self) -> bool:
        """It is proven that no configuration meets the rows."""
        return self.complete and self.picked is None


def relative_gap(objective: float, bound: float) -> float:
    """`(objective - bound) / |objective|`, never negative; infinity if the objective is 0 and the bound is not.

    Args:
        objective: Value of the incumbent.
        bound: Proven lower bound.

    Returns:
        The gap, which does not change when both are multiplied by the same positive constant.
    """
    if bound >= objective:
        return 0.0
    return (objective - bound) / abs(objective) if objective else float("inf")
