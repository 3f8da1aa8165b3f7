"""Proposers that solve an additive table: the scores of the problem's proxies, or a surrogate refitted to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ...errors import InvalidInput
from ...proxies import Sensitivity
from ..allocation import allocate
from ..groups import IntArray
from ..problem import Problem
from .base import BaseProposer
from .limits import FloatArray

Pairs = Mapping[tuple[int, int], FloatArray]
SURROGATE = "surrogate"
_GAP = 1e-3  # relative, that is good enough with pairwise terms


class TableProposer(BaseProposer):
    """A proposer with a table of losses: until ``use`` gives it one, the scores of the proxies.

    Args:
        problem: scores, prices, objectives, constraints.
        seed: of random choices, where there are any.
    """

    oversample = 2  # an integer program for each

    def __init__(self, problem: Problem, seed: int = 0) -> None:
        super().__init__(problem, seed)
        self.source = problem
        self.pairs: Pairs = {}

    def use(self, table: FloatArray, pairs: Pairs | None = None) -> None:
        """Solve this table from now on, such as that of the surrogate after the last refit.

        Args:
            table: loss [sites, formats], lower is better; what is not offered is ignored.
            pairs: two sites to what they cost beyond the sum of their losses: [formats, formats].

        Raises:
            InvalidInput: the shape does not fit the space, or an offered entry is not finite.
        """
        space = self.problem.space
        values = np.asarray(table, dtype=np.float64)
        expected = (len(space.sites), len(space.formats))
        if values.shape != expected:
            raise InvalidInput(f"table of losses {values.shape}; expected [sites, formats] = {expected}")
        if not np.isfinite(values[space.allowed]).all():
            raise InvalidInput("the table of losses holds NaN or infinity at an offered format; give finite losses")
        scores = Sensitivity(
            proxy=SURROGATE,
            values=np.where(space.allowed, values, np.nan),
            error=None,
            sites=tuple(space.names),
            formats=space.formats,
            seconds=0.0,
        )
        self.source = replace(self.problem, sensitivities={SURROGATE: scores}, _fronts={})
        self.pairs = dict(pairs or {})

    def first(self) -> str:
        """The table that single answers are solved with."""
        return next(iter(self.source.sensitivities))

    def solved(self, proxy: str, budgets: Mapping[str, float]) -> IntArray:
        """The optimum of a table within budgets (totals), pairwise terms included: genes [groups].

        Raises:
            InfeasibleBudget: no configuration meets them.
        """
        space, source = self.problem.space, self.source
        if not self.pairs:
            return self.groups.contract(space.choice(source.solve(proxy, budgets)))
        found = allocate(
            source.loss(proxy),
            {name: source.cost(name) for name in budgets},
            {name: limit - source.prices[name].base for name, limit in budgets.items()},
            ties=space.tie_indices,
            allowed=space.allowed,
            pair_loss=self.pairs,
            gap=_GAP,
        )
        return self.groups.contract(np.asarray(found.choice))

    def within(self, genes: IntArray, metric: str) -> IntArray:
        """With pairwise terms, the optimum at the price of a configuration; without, the configuration itself."""
        if not self.pairs:
            return genes
        price = float(self.problem.totals(self.groups.expand(genes)[None], metric)[0])
        return self.solved(self.first(), {**self.problem.constraints, metric: price * (1 + 1e-12)})
