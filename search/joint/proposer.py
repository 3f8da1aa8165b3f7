"""Who proposes architectures: the protocol, and what is told of those that were proposed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...architecture import Choices
from .merged import Merged, gaps


@dataclass(frozen=True)
class Told:
    """What a proposer learns of an architecture, again after every round: measurements move the fronts.

    Attributes:
        choices: the architecture.
        quality: of its float network as it is foretold now, lower is better; infinite where nothing of it could be
            measured.
        front: objectives of the points of its own front as they are foretold now, all minimised, the quality first:
            float64 [points, objectives]; no rows where nothing meets the constraints.
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


def told_of(
    choices: Sequence[Choices],
    floats: Mapping[Choices, float],
    fronts: Sequence[NDArray[np.float64]],
    merged: Merged,
    *,
    by_quality: bool,
) -> list[Told]:
    """What a proposer is told of architectures with fronts.

    Args:
        choices: the architectures.
        floats: quality of their float networks.
        fronts: of each [points, objectives].
        merged: the front of these fronts.
        by_quality: the gap is how far its best quality is from the best of all in units of the merged front's extent,
            as under constraints only that counts; else as ``merged.gaps``.
    """
    shares = merged.share(len(fronts)) / max(1, len(merged))
    if by_quality and len(merged):
        extent = max(float(np.ptp(merged.values[:, 0])), 1e-12)
        best = float(merged.values[:, 0].min())
        far = np.array([(each[:, 0].min() - best) / extent if len(each) else np.inf for each in fronts])
    else:
        far = gaps(fronts, merged.values)
    return [
        Told(each, floats[each], points, float(gap), float(share))
        for each, points, gap, share in zip(choices, fronts, far, shares, strict=True)
    ]
