"""Who proposes architectures: the protocol, and what is told of those that were proposed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...architecture import Choices


@dataclass(frozen=True)
class Told:
    """What a proposer learns of an architecture, again after every round: measurements move the fronts.

    Attributes:
        choices: the architecture.
        quality: of its float network, lower is better; infinite where its output was not finite.
        front: objectives of the points of its own front, foretold and corrected by what was measured, all minimised,
            the quality first: float64 [points, objectives]; no rows where nothing meets the constraints.
        gap: how far its front is from the merged one in units of that one's extent; 0 where it contributes.
        share: which part of the merged front is its own.
    """

    choices: Choices
    quality: float
    front: NDArray[np.float64] = field(repr=False)
    gap: float
    share: float


@runtime_checkable
class Proposer(Protocol):
    """Proposes architectures; their formats are not its business.

    Given the same seed, asks and tells, it proposes the same. What a user brings is called with the space of dimensions
    and a seed: ``proposer(architecture, seed=0)``.
    """

    def ask(self, count: int) -> list[Choices]:
        """Up to ``count`` architectures that were not asked for before; none: there are no more."""
        ...

    def tell(self, told: Sequence[Told]) -> None:
        """Everything known after a round, of every architecture so far, the largest included."""
        ...
