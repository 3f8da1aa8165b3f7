"""The protocol of proposers: who asks for configurations to be measured, and is told what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...measurement import Measurement
from ...space import Configuration
from ..problem import Proposal


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A configuration that was measured on the whole validation split, or estimated from a part of it.

    Estimates are for the surrogate alone; proposers are told whole measurements.

    Attributes:
        configuration: what.
        choice: the same as columns of the space: int64 [sites].
        origin: who proposed it.
        measurement: its quality.
        costs: its price objectives, in the order of ``problem.price_objectives``: float64 [price objectives].
        feasible: whether it meets the constraints.
        error: standard error of the quality where it is an estimate (``whole_from_part``), in its unit; 0 where it was
            measured on the whole split.
    """

    configuration: Configuration
    choice: NDArray[np.int64]
    origin: str
    measurement: Measurement
    costs: NDArray[np.float64]
    feasible: bool
    error: float = 0.0

    @property
    def quality(self) -> float:
        """The measured value, lower is better."""
        return self.measurement.value


class Proposer(Protocol):
    """Asks for configurations. Every proposer is told every result, also of what others proposed.

    The same seed and the same sequence of ``tell`` and ``ask`` give the same proposals, whatever measures them.
    """

    name: str

    def ask(self, count: int) -> list[Proposal]:
        """Up to ``count`` different configurations that meet the constraints and were neither measured nor asked for.

        Fewer, or none, when it has nothing more to offer.
        """
        ...

    def tell(self, evaluated: Sequence[Evaluated]) -> None:
        """Take in new results, in the order of their proposal."""
        ...
