"""Regularized (aging) evolution.

E. Real, A. Aggarwal, Y. Huang, Q. V. Le, Regularized evolution for image classifier architecture search, AAAI 2019,
arXiv:1802.01548, algorithm 1: of a sample of the population the best becomes a parent, its mutant joins the population,
and the oldest member dies, however good it is. A mutation gives one random gene another random format.

The best of a sample is judged at the level of the turn (``levels.py``): within the budgets by quality, beyond them by
excess. The mutant is brought within the budgets (``repair.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ...errors import InvalidInput
from ..groups import IntArray
from ..problem import Problem
from .base import BaseProposer
from .draws import flat
from .levels import Levels
from .limits import Limits
from .proposer import Evaluated
from .repair import repaired

_MISSES = 20  # mutants in a row at one level that are not new


class RegularizedEvolution(BaseProposer):
    """Aging evolution with tournament selection.

    Args:
        problem: the problem.
        seed: of the draws.
        population: how many of the latest results may be parents; so many random configurations come first.
        sample: of them a tournament sees.
    """

    name = "regularized_evolution"

    def __init__(self, problem: Problem, seed: int = 0, population: int = 10, sample: int = 4) -> None:
        super().__init__(problem, seed)
        if not 1 <= sample <= population:
            raise InvalidInput(f"sample={sample} of population={population}; expected 1 <= sample <= population")
        self.population, self.sample = population, sample
        self.levels = Levels(problem)
        self._begun = 0

    def candidates(self) -> Iterator[tuple[IntArray, str]]:
        """Random ones until the population is full, then mutants of the winners of tournaments."""
        told = self.inside()
        fruitless = 0
        while fruitless < self.levels.count(told):
            fruitless += 1
            budgets = self.levels.take(told).budgets
            limits = Limits.of(self.problem, self.groups, budgets)
            random = max(len(told), self._begun) < self.population
            for _ in range(_MISSES):
                wanted = self._random() if random or not told else self._mutant(told, limits)
                child = repaired(wanted, limits, self.groups.allowed, self.generator)
                if child is not None and self.is_new(child):
                    fruitless = 0
                    self._begun += random
                    yield child, self.name
                    break

    def _random(self) -> IntArray:
        return flat(self.groups.allowed, self.generator.gumbel(size=self.groups.allowed.shape))

    def _mutant(self, told: Sequence[Evaluated], limits: Limits) -> IntArray:
        """The winner of a tournament among the latest, with one other gene."""
        alive = told[-self.population :]
        drawn = self.generator.choice(len(alive), size=min(self.sample, len(alive)), replace=False).tolist()
        genes = [self.groups.contract(alive[index].choice) for index in drawn]
        excess = limits.excess(limits.totals(np.stack(genes)))
        best = min(range(len(drawn)), key=lambda at: (excess[at], alive[drawn[at]].quality))
        found = genes[best].copy()
        others = self.groups.allowed.copy()
        others[np.arange(len(found)), found] = False
        movable = np.flatnonzero(others.any(axis=1))
        if len(movable):
            group = int(self.generator.choice(movable))
            found[group] = self.generator.choice(np.flatnonzero(others[group]))
        return found
