"""Evolution of the architectures whose fronts reach the merged front: the default proposer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...architecture import ArchitectureSpace, Choices
from .decisions import ArchitectureDecisions
from .operators import Operators
from .proposer import Told

_TRIES = 200  # draws without anything new until the space counts as spent
_CROSSED = 0.5  # share of children with two parents
_ONE = 0.6  # of the children change one dimension only; more are rarer by a geometric distribution
_ELITE = 0.25  # of the architectures, and at least _FEWEST, are parents
_FEWEST = 4


class FrontEvolution:
    """Children of the architectures nearest to the merged front.

    An architecture is as fit as its front is near to the merged one (``merged.gaps``), whichever part of the front it
    is good for, so small and large ones live side by side without weights between quality and price. Parents are the
    fittest quarter. A child takes every dimension from one of two parents, or all from one, and then one dimension or
    more take other values (``operators.Operators``). The first architectures are random ones.

    Args:
        architecture: the dimensions.
        seed: of every draw.
        initial: random architectures before the first children.
    """

    def __init__(self, architecture: ArchitectureSpace, seed: int = 0, initial: int = 8) -> None:
        self.architecture, self.initial = architecture, initial
        self._draw = np.random.default_rng(seed)
        self._operators = Operators(ArchitectureDecisions(architecture))
        self._asked: set[Choices] = set()
        self._told: list[Told] = []

    def ask(self, count: int) -> list[Choices]:
        """See ``Proposer.ask``."""
        found: list[Choices] = []
        tries = 0
        while len(found) < count and tries < _TRIES * max(1, count):
            tries += 1
            made = self._made()
            if made not in self._asked:
                self._asked.add(made)
                found.append(made)
        return found

    def tell(self, told: Sequence[Told]) -> None:
        """See ``Proposer.tell``."""
        self._told = list(told)
        self._asked |= {each.choices for each in told}

    def _made(self) -> Choices:
        usable = [each for each in self._told if np.isfinite(each.gap)]
        if len(self._asked) < self.initial or not usable:
            return self.architecture.sample(self._draw)
        ranked = sorted(usable, key=lambda each: (each.gap, -each.share, each.choices.digest))
        parents = ranked[: max(_FEWEST, round(_ELITE * len(ranked)))]
        return self._child(parents)

    def _child(self, parents: Sequence[Told]) -> Choices:
        draw = self._draw
        first, second = (parents[int(draw.integers(len(parents)))].choices for _ in range(2))
        child = self._operators.crossed(first, second, draw) if draw.random() < _CROSSED else first
        return self._operators.mutated(child, draw, changes=int(draw.geometric(_ONE)))
