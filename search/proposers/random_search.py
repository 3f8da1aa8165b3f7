"""Random search within the constraints: the control that every other proposer has to beat.

J. Bergstra and Y. Bengio, Random search for hyper-parameter optimization, JMLR 13, 2012. Formats drawn with the same
chance crowd around one price, so formats are tilted towards a target (``draws.py``). With constraints the targets are
the constraints themselves: a random convex mix of the prices is drawn to the largest value that it may have, and what
still breaks a constraint is repaired. Without, targets are spread evenly over the range of a price objective.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from ..groups import IntArray
from ..problem import Problem
from .base import BaseProposer
from .draws import tilted
from .limits import Limits
from .repair import repaired

_MISSES = 60  # draws in a row that are not new
_ENUMERABLE = 4096  # configurations of a space that is small enough to list


class RandomSearch(BaseProposer):
    """Random configurations that meet the constraints.

    Args:
        problem: the problem.
        seed: of the draws.
    """

    name = "random"

    def __init__(self, problem: Problem, seed: int = 0) -> None:
        super().__init__(problem, seed)
        names = problem.constraints or dict.fromkeys(problem.price_objectives, np.inf)
        self.limits = Limits.of(problem, self.groups, names)

    def candidates(self) -> Iterator[tuple[IntArray, str]]:
        """Draws; when these bring nothing new, what is left of a small space."""
        misses = 0
        while misses < _MISSES:
            genes = self._drawn()
            if genes is None:
                return
            misses = 0 if self.is_new(genes) else misses + 1
            yield genes, self.name
        if np.prod(self.groups.allowed.sum(axis=1).astype(float)) <= _ENUMERABLE:
            rest = [np.array(genes) for genes in product(*(np.flatnonzero(row) for row in self.groups.allowed))]
            for index in self.generator.permutation(len(rest)):
                yield rest[index], self.name

    def _drawn(self) -> IntArray | None:
        limits, allowed, generator = self.limits, self.groups.allowed, self.generator
        noise = generator.gumbel(size=allowed.shape)
        low = np.where(allowed, limits.rows, np.inf).min(axis=2).sum(axis=1) / limits.scale
        most = low + generator.random() if not self.problem.constraints else limits.most / limits.scale
        weights = generator.dirichlet(np.ones(len(limits.rows)))
        mixed = np.tensordot(weights / limits.scale, limits.rows, 1)
        target = float(weights @ np.minimum(most, low + 1))
        return repaired(tilted(mixed, allowed, target, noise), limits, allowed, generator)
