"""Evolution of the architectures whose fronts reach the merged front: the default proposer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...architecture import ArchitectureSpace, Choices
from .proposer import Told

_TRIES = 200  # draws without anything new until the space counts as spent
_CROSSED = 0.5  # share of children with two parents
_ELITE = 0.25  # of the architectures, and at least _FEWEST, are parents
_FEWEST = 4


class FrontEvolution:
    """Children of the architectures nearest to the merged front.

    An architecture is as fit as its front is near to the merged one (``merged.gaps``), whichever part of the front it
    is good for, so small and large ones live side by side without weights between quality and price. Parents are the
    fittest quarter. A child takes every dimension from one of two parents, or all from one, and one or more dimensions
    are drawn anew (each with probability 1/n, at least one); what exists in a child and in no parent is drawn. Ties are
    one gene. The first architectures are the smallest and random ones.

    Args:
        architecture: the dimensions.
        seed: of every draw.
        initial: random architectures before the first children.
    """

    def __init__(self, architecture: ArchitectureSpace, seed: int = 0, initial: int = 8) -> None:
        self.architecture, self.initial = architecture, initial
        self._draw = np.random.default_rng(seed)
        self._sizes = np.array([len(each.values) for each in architecture.dimensions])
        self._genes = _genes(architecture)
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
        smallest = self.architecture.smallest()
        if smallest not in self._asked:
            return smallest
        usable = [each for each in self._told if np.isfinite(each.gap)]
        if len(self._asked) < self.initial or not usable:
            return self.architecture.sample(self._draw)
        ranked = sorted(usable, key=lambda each: (each.gap, -each.share, each.choices.digest))
        parents = ranked[: max(_FEWEST, round(_ELITE * len(ranked)))]
        return self._child(parents)

    def _child(self, parents: Sequence[Told]) -> Choices:
        draw = self._draw
        first, second = (self.architecture.indices(parents[int(draw.integers(len(parents)))].choices) for _ in range(2))
        if draw.random() >= _CROSSED:
            second = first
        genes = len(self._genes)
        fresh = draw.random(genes) < 1 / genes
        fresh[int(draw.integers(genes))] = True
        found = np.empty(len(self._sizes), dtype=np.int64)
        for gene, again in zip(self._genes, fresh, strict=True):
            known = [index for parent in (first, second) for index in parent[gene][parent[gene] >= 0][:1]]
            if again or not known:
                found[gene] = draw.integers(self._sizes[gene[0]])
            else:
                found[gene] = known[int(draw.integers(len(known)))]
        return self.architecture.from_indices(found)


def _genes(architecture: ArchitectureSpace) -> list[list[int]]:
    """Positions of dimensions that take one value together."""
    position = {each.name: index for index, each in enumerate(architecture.dimensions)}
    tied = [[position[name] for name in tie] for tie in architecture.ties]
    inside = {index for group in tied for index in group}
    return [*tied, *([index] for index in range(len(position)) if index not in inside)]
