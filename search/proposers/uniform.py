"""The uniform configurations: what every answer has to beat, so they are measured first."""

from __future__ import annotations

from collections.abc import Iterator

from ..groups import IntArray
from ..problem import Problem
from .base import BaseProposer


class Uniform(BaseProposer):
    """One configuration for every format, the coarsest first.

    Args:
        problem: the problem.
        seed: not used; nothing is random here.
        every: also those that break the constraints, as baselines of the whole front. They are the only proposals
            of any proposer that do.
    """

    name = "uniform"

    def __init__(self, problem: Problem, seed: int = 0, every: bool = False) -> None:
        super().__init__(problem, seed)
        self.every = every

    def is_new(self, genes: IntArray) -> bool:
        """Whether it was neither measured nor asked for, and meets the constraints where it has to."""
        return self.unseen(genes) if self.every else super().is_new(genes)

    def candidates(self) -> Iterator[tuple[IntArray, str]]:
        """All of them."""
        for configuration in self.problem.space.uniforms().values():
            yield self.groups.contract(self.problem.space.choice(configuration)), self.name
