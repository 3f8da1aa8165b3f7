"""Proposers mixed by a bandit: each has a share of the round, and the best of what it asks for is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..space import Configuration
from .bandit import Bandit
from .problem import Problem, Proposal
from .proposers import Evaluated, Proposer, make
from .proposers.tables import TableProposer

Select = Callable[[Sequence[Proposal], int], list[int]]
_OVERSAMPLE = 32  # proposals in a pool for each that is measured, unless a proposer says otherwise: ``oversample``
_THINNED = 64  # points of a predicted front
_POOL = 256  # most proposals kept of one proposer


class Mixture:
    """Several proposers as one.

    A proposer asks for more than its share; what is not measured stays in its pool and competes in the next round.

    Args:
        names: of the proposers.
        problem: scores, prices, objectives, constraints.
        seed: of every random choice.
    """

    def __init__(self, names: Sequence[str], problem: Problem, seed: int) -> None:
        self.proposers: dict[str, Proposer] = {
            name: make(name, problem, seed + index) for index, name in enumerate(dict.fromkeys(names))
        }
        self.bandit = Bandit(list(self.proposers))
        tables = [each for each in self.proposers.values() if isinstance(each, TableProposer)]
        self._table = tables[0] if tables else TableProposer(problem, seed)
        self._pools: dict[str, dict[Configuration, Proposal]] = {name: {} for name in self.proposers}
        self._owner: dict[Configuration, str] = {}

    def use(self, table: Any, pairs: Mapping[tuple[int, int], Any] | None) -> None:
        """Hand the refitted table to those who solve one."""
        for proposer in dict.fromkeys([self._table, *self.proposers.values()]):
            take = getattr(proposer, "use", None)
            if take is not None:
                take(table, pairs)

    def predicted_front(self) -> np.ndarray:
        """The exact front of the table in use against the first price objective, thinned evenly: [points, sites]."""
        source = self._table.source
        front = source.front(self._table.first(), source.price_objectives[0])
        kept = np.unique(np.linspace(0, max(0, len(front) - 1), min(len(front), _THINNED)).astype(int))
        thinned: np.ndarray = front[kept]
        return thinned

    def ask(self, count: int, select: Select, taken: Iterable[Configuration]) -> list[Proposal]:
        """The next round.

        Args:
            count: how many configurations.
            select: which of the pooled proposals of one proposer, given how many: indices, most wanted first.
            taken: what needs no measuring any more.

        Returns:
            Up to ``count`` different configurations; fewer when no proposer has more.
        """
        gone = set(taken)
        chosen: dict[Configuration, Proposal] = {}
        shares = self.bandit.shares(count)
        for name, share in shares.items():
            self._draw(name, share, select, gone, chosen)
        for name in sorted(shares, key=lambda each: -shares[each]):  # what others could not fill
            self._draw(name, count - len(chosen), select, gone, chosen)
        return list(chosen.values())

    def tell(self, evaluated: Sequence[Evaluated], gains: Sequence[float], asked: Sequence[Proposal] = ()) -> None:
        """Results of a round; every proposer learns all of them, the bandit credits the owners.

        Args:
            evaluated: what was measured on the whole validation data.
            gains: what each gained.
            asked: the round; what of it has no such measurement (it failed, or was screened out) gained nothing.
        """
        for proposer in self.proposers.values():
            proposer.tell(evaluated)
        gained = {found.configuration: gain for found, gain in zip(evaluated, gains, strict=True)}
        improvements: dict[str, list[float]] = {}
        for configuration in dict.fromkeys([*gained, *(each.configuration for each in asked)]):
            owner = self._owner.get(configuration)
            if owner is not None:
                improvements.setdefault(owner, []).append(gained.get(configuration, 0.0))
        if improvements:
            self.bandit.reward(improvements)

    def report(self) -> list[dict[str, Any]]:
        """Shares and credits of every proposer, as plain data."""
        return [asdict(arm) for arm in self.bandit.report()]

    def _draw(
        self, name: str, count: int, select: Select, gone: set[Configuration], chosen: dict[Configuration, Proposal]
    ) -> None:
        """Add up to ``count`` of one proposer to what is chosen."""
        if count <= 0:
            return
        pool = self._pools[name]
        proposer = self.proposers[name]
        wanted = getattr(proposer, "oversample", _OVERSAMPLE) * count
        for proposal in proposer.ask(min(wanted, _POOL)):
            pool.setdefault(proposal.configuration, proposal)
        for configuration in [each for each in pool if each in gone or each in chosen]:
            del pool[configuration]
        offered = list(pool.values())
        for index in select(offered, count):
            found = offered[index]
            chosen[found.configuration] = found
            self._owner[found.configuration] = name
            del pool[found.configuration]
        for configuration in list(pool)[: max(0, len(pool) - _POOL)]:  # the oldest
            del pool[configuration]
