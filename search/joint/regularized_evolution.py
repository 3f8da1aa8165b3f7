r"""Regularized (aging) evolution of genomes for a front.

E. Real, A. Aggarwal, Y. Huang and Q. V. Le, Regularized evolution for image classifier architecture search, AAAI 2019,
arXiv:1802.01548, algorithm 1: the best of a random sample of the population becomes a parent, its mutant joins, the
oldest member dies however good it is.

The paper has one objective. Here the winner of a tournament is the one with the least augmented Chebyshev norm of the
objectives, scaled to [0, 1] over everything told, with weights that are drawn anew for every tournament (J. Knowles,
ParEGO, IEEE TEC 10(1), 2006, equation 2):

.. math:: f_w(x) = \max_j w_j f_j(x) + 0.05 \sum_j w_j f_j(x), \quad w \sim \operatorname{Dirichlet}(1)

so the population spreads along the front. Where prices are known without a measurement a tournament draws budgets
instead, uniform over the range of what was told: the best quality within the budgets wins, and mutants beyond them are
thrown away before anything is measured.
"""

from __future__ import annotations

import numpy as np

from ...errors import InvalidInput
from .decisions import Decisions, FloatArray, G
from .sampler import BaseSampler, Prices

_AUGMENTATION = 0.05
_MUTANTS = 50  # of one parent within the budgets, before those beyond them are taken too
_PARENTS = 20  # tournaments without a new mutant before a random genome is asked for


class RegularizedGenomeEvolution(BaseSampler[G]):
    """Aging evolution with tournament selection.

    Args:
        decisions: what there is to decide.
        seed: of every draw.
        prices: objectives that are known without a measurement.
        population: how many of the latest may be parents; so many random genomes come first.
        sample: of them a tournament sees.

    Raises:
        InvalidInput: the sample is larger than the population, or empty.
    """

    name = "regularized_evolution"

    def __init__(
        self,
        decisions: Decisions[G],
        seed: int = 0,
        prices: Prices[G] | None = None,
        population: int = 50,
        sample: int = 10,
    ) -> None:
        super().__init__(decisions, seed, prices)
        if not 1 <= sample <= population:
            raise InvalidInput(f"sample={sample} of population={population}; expected 1 <= sample <= population")
        self.population, self.sample = population, sample

    def _next(self) -> G | None:
        genomes, values = self._usable()
        if len(self._asked) < self.population or not genomes:
            return self._random()
        for _ in range(_PARENTS):
            child = self._child(genomes, values)
            if child is not None:
                return child
        return self._random()

    def _child(self, genomes: list[G], values: FloatArray) -> G | None:
        """A new mutant of the winner of one tournament."""
        alive = range(max(0, len(genomes) - self.population), len(genomes))
        drawn = self.draw.choice(np.array(alive), min(self.sample, len(alive)), replace=False)
        if self.prices is None:
            return self._mutant(genomes[int(drawn[np.argmin(self._scalars(values)[drawn])])], None)
        count = self.prices(genomes[:1]).shape[1]
        known = values[:, -count:]
        budgets = self.draw.uniform(known.min(axis=0), known.max(axis=0))
        excess = (np.maximum(known[drawn] - budgets, 0) / np.maximum(np.ptp(known, axis=0), 1e-300)).sum(axis=1)
        scalars = self._scalars(values[:, :-count])[drawn]
        return self._mutant(genomes[int(drawn[np.lexsort((scalars, excess))[0]])], budgets)

    def _mutant(self, parent: G, budgets: FloatArray | None) -> G | None:
        def make() -> G:
            return self.operators.mutated(parent, self.draw)

        for _ in range(_MUTANTS if self.prices is not None and budgets is not None else 0):
            made = make()
            if made not in self._asked and self.prices is not None and (self.prices([made])[0] <= budgets).all():
                return made
        return self._first_new(make, 10)

    def _scalars(self, values: FloatArray) -> FloatArray:
        """What a tournament minimises: [n]."""
        scaled = (values - values.min(axis=0)) / np.maximum(np.ptp(values, axis=0), 1e-300)
        weighted = self.draw.dirichlet(np.ones(values.shape[1])) * scaled
        scalars: FloatArray = weighted.max(axis=1) + _AUGMENTATION * weighted.sum(axis=1)
        return scalars
