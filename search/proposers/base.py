"""What all proposers share: what was told, what was asked for, and the check of every proposal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from ...space import Configuration
from ..groups import Groups, IntArray
from ..problem import Problem, Proposal
from .proposer import Evaluated


class BaseProposer:
    """A proposer that generates candidates without end or until it has no more; the rest is done here.

    A subclass gives ``candidates()``: genes and their origin, one after the other. What does not meet the constraints
    or was measured or asked for before is passed over.

    Args:
        problem: scores, prices, objectives, constraints of a space.
        seed: of every random choice.
    """

    name = ""

    def __init__(self, problem: Problem, seed: int = 0) -> None:
        self.problem = problem
        self.groups = Groups.of(problem.space)
        self.generator = np.random.default_rng(seed)
        self.told: list[Evaluated] = []
        self._seen: set[bytes] = set()

    def ask(self, count: int) -> list[Proposal]:
        """Up to ``count`` different configurations that meet the constraints and are new."""
        fresh = (found for genes, origin in self.candidates() if (found := self._taken(genes, origin)))
        return list(islice(fresh, count)) if count > 0 else []

    def tell(self, evaluated: Sequence[Evaluated]) -> None:
        """Take in new results."""
        self.told += evaluated
        self._seen |= {_key(each.choice) for each in evaluated}

    def skip(self, configurations: Iterable[Configuration]) -> None:
        """Never propose these: another proposer asked for them, or they could not be measured."""
        self._seen |= {_key(self.problem.space.choice(each)) for each in configurations}

    def share(self, helper: BaseProposer) -> None:
        """Let another proposer's ``candidates`` pass over what this one knows."""
        helper._seen = self._seen

    def candidates(self) -> Iterator[tuple[IntArray, str]]:
        """Genes [groups] and origin, most wanted first; called anew for every ``ask``."""
        raise NotImplementedError

    def is_new(self, genes: IntArray) -> bool:
        """Whether a configuration meets the constraints and was neither measured nor asked for."""
        return self.unseen(genes) and bool(self.problem.meets(self.groups.expand(genes)[None])[0])

    def unseen(self, genes: IntArray) -> bool:
        """Whether a configuration was neither measured nor asked for."""
        return _key(self.groups.expand(genes)) not in self._seen

    def inside(self) -> list[Evaluated]:
        """What was told and consists of formats that are offered here (a restricted space offers fewer)."""
        return [each for each in self.told if self.offers(each.choice)]

    def offers(self, choice: IntArray) -> bool:
        """Whether a configuration [sites] consists of formats that are offered here."""
        return bool(self.groups.allowed[np.arange(len(self.groups)), self.groups.contract(choice)].all())

    def _taken(self, genes: IntArray, origin: str) -> Proposal | None:
        if not self.is_new(genes):
            return None
        choice = self.groups.expand(genes)
        self._seen.add(_key(choice))
        return Proposal(self.problem.space.configuration(choice), origin)


def _key(choice: IntArray) -> bytes:
    return np.asarray(choice, dtype=np.int16).tobytes()
