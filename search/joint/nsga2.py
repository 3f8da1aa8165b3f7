"""NSGA-II on genomes with conditions and ties.

K. Deb, A. Pratap, S. Agarwal and T. Meyarivan, A fast and elitist multiobjective genetic algorithm: NSGA-II, IEEE TEC
6(2), 2002: parents by binary tournament on (rank, crowding distance), children by crossover and mutation, survivors of
parents and children by the same order. Survivors are chosen whenever results come, of whatever number, so a batch is
as large as there are workers and a generation need not be waited for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from .decisions import Decisions, FloatArray, G
from .sampler import BaseSampler, Prices

_CHILDREN = 200  # in a row that are known already, before a random genome is asked for


class NondominatedSorting(BaseSampler[G]):
    """NSGA-II.

    Args:
        decisions: what there is to decide.
        seed: of every draw.
        prices: taken for the protocol; the survivors are chosen by what was told.
        population: how many survive; so many random genomes come first.
        crossover: probability that a child has two parents; one of a single parent is always mutated, one of two with
            probability one half.

    Raises:
        InvalidInput: the population is smaller than two, or the probability is none.
    """

    name = "nsga2"

    def __init__(
        self,
        decisions: Decisions[G],
        seed: int = 0,
        prices: Prices[G] | None = None,
        population: int = 50,
        crossover: float = 0.9,
    ) -> None:
        super().__init__(decisions, seed, prices)
        if population < 2 or not 0 <= crossover <= 1:
            raise InvalidInput(
                f"population={population}, crossover={crossover}; give 2 or more, and a probability from 0 to 1"
            )
        self.population, self.crossover = population, crossover
        self._alive: list[G] = []

    def tell(self, genomes: Sequence[G], values: FloatArray) -> None:
        """See ``Sampler.tell``; the best of the population and these survive."""
        super().tell(genomes, values)
        pool = [each for each in dict.fromkeys([*self._alive, *genomes]) if np.isfinite(self.told[each]).all()]
        if pool:
            best = survival_order(np.array([self.told[each] for each in pool]))[: self.population]
            self._alive = [pool[int(index)] for index in best]

    def _next(self) -> G | None:
        if len(self._asked) < self.population or not self._alive:
            return self._random()
        child = self._first_new(self._child, _CHILDREN)
        return self._random() if child is None else child

    def _child(self) -> G:
        first = self._parent()
        if self.draw.random() >= self.crossover:
            return self.operators.mutated(first, self.draw)
        child = self.operators.crossed(first, self._parent(), self.draw)
        return self.operators.mutated(child, self.draw) if self.draw.random() < 0.5 else child

    def _parent(self) -> G:
        """The winner of a binary tournament; the population is in order."""
        return self._alive[int(self.draw.integers(len(self._alive), size=2).min())]


def survival_order(values: FloatArray) -> NDArray[np.int64]:
    """Best first: by rank of nondominated sorting, then by crowding distance within the rank.

    Args:
        values: objectives, all minimised: [n, objectives].

    Returns:
        Indices [n].
    """
    import moocore

    rank = moocore.pareto_rank(values)
    distance = np.zeros(len(values))
    for level in np.unique(rank):
        members = np.flatnonzero(rank == level)
        distance[members] = crowding_distance(values[members])
    order: NDArray[np.int64] = np.lexsort((-distance, rank)).astype(np.int64)
    return order


def crowding_distance(values: FloatArray) -> FloatArray:
    r"""Deb et al. 2002, section III-B: :math:`\sum_j (f_j(next) - f_j(previous)) / (max f_j - min f_j)`.

    The ends of every objective are infinitely far; of equal points all but one have a distance of zero, so that copies
    do not crowd out the rest.

    Args:
        values: of one rank: [n, objectives].

    Returns:
        Distances [n].
    """
    distinct, first = np.unique(values, axis=0, return_index=True)
    found = np.zeros(len(distinct))
    for column in distinct.T:
        order = np.argsort(column, kind="stable")
        width = column[order[-1]] - column[order[0]]
        found[order[[0, -1]]] = np.inf
        if width > 0:
            found[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / width
    distance = np.zeros(len(values))
    distance[first] = found
    return distance
