"""A sampler of architectures as the proposer of a nested search.

A nested search knows a whole front of every architecture (its formats are solved exactly); a sampler learns one point.
That point is the corner of the architecture's front: its best quality, and its lowest prices. The corner is the best
that the architecture can be in every objective at once, so an architecture is put aside only when another one's corner
is better in all of them. Corners move with every round of measurements; the sampler is told again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...architecture import ArchitectureSpace, Choices
from .decisions import ArchitectureDecisions
from .proposer import Told
from .sampler import BaseSampler


class SampledProposer:
    """Asks a sampler for architectures and tells it corners.

    Args:
        sampler: of architectures.
    """

    def __init__(self, sampler: BaseSampler[Choices]) -> None:
        self.sampler = sampler

    def ask(self, count: int) -> list[Choices]:
        """See ``Proposer.ask``."""
        return self.sampler.ask(count)

    def tell(self, told: Sequence[Told]) -> None:
        """See ``Proposer.tell``; an architecture without a front counts as not measurable."""
        width = max((each.front.shape[1] for each in told if len(each.front)), default=0)
        if width:
            corners = [each.front.min(axis=0) if len(each.front) else np.full(width, np.nan) for each in told]
            self.sampler.tell([each.choices for each in told], np.array(corners))


def proposer_from(
    sampler: Callable[..., BaseSampler[Choices]], **options: Any
) -> Callable[[ArchitectureSpace, int], SampledProposer]:
    """A sampler class as the argument ``proposer`` of a joint search.

    Args:
        sampler: such as ``ModelBased``.
        options: its arguments besides decisions and seed.

    Returns:
        What makes the proposer from the dimensions and a seed.
    """

    def make(architecture: ArchitectureSpace, seed: int = 0) -> SampledProposer:
        return SampledProposer(sampler(ArchitectureDecisions(architecture), seed, **options))

    return make
