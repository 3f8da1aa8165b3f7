"""The best few solutions of the additive table at a budget that really differ from each other.

The optimum of a table that is a little wrong is rarely the optimum of what is measured, but it is near it: the K best
that differ at some sites each are a better bet than K neighbours on the front. One exact program after the other, each
with a cut more (``search/allocation/diverse.py``): a new one shares at most ``groups - distance`` choices with each of
those found. At 100 groups of 8 formats each of the first eight takes 10 ms, a later one 0.5 s (HiGHS).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...errors import InvalidInput
from ..allocation.problem import Problem as Program
from ..allocation.program import assemble
from ..allocation.solve import solve
from ..groups import IntArray
from ..problem import Problem
from .levels import Levels
from .limits import FloatArray
from .tables import Pairs, TableProposer

_GAP = 1e-3  # relative, that is good enough for each
_MISSES = 20  # solutions in a row at one level that are known


@dataclass
class _Solutions:
    """What was found at one level: the program with the cuts so far."""

    program: Program
    count: int = 0
    spent: bool = False


class Diverse(TableProposer):
    """Top-K solutions at the constraints; without any, at the prices of the measured front in turn.

    Args:
        problem: the problem; its first proxy is the table until ``use`` gives another one.
        seed: not used; nothing is random here.
        distance: groups in which two solutions differ at least; default a tenth of them, at least 1.
        most: solutions of one table at one level; every one makes the next harder to find.
    """

    name = "diverse"

    def __init__(self, problem: Problem, seed: int = 0, distance: int | None = None, most: int = 16) -> None:
        super().__init__(problem, seed)
        if distance is not None and not 1 <= distance <= len(self.groups):
            raise InvalidInput(f"distance={distance}; expected 1 to {len(self.groups)}, the number of tie groups")
        self.distance = distance or max(1, round(len(self.groups) / 10))
        self.most = most
        self.levels = Levels(problem)
        self._found: dict[tuple[float, ...], _Solutions] = {}

    def use(self, table: FloatArray, pairs: Pairs | None = None) -> None:
        """Solve this table from now on; solutions of the one before are no longer cut off."""
        super().use(table, pairs)
        self._found = {}

    def candidates(self) -> Iterator[tuple[IntArray, str]]:
        """The next best of one level after the other, until no level has one."""
        told = self.inside()
        fruitless = 0
        while fruitless < self.levels.count(told):
            fruitless += 1
            solutions = self._at(self.levels.take(told).budgets)
            for _ in range(_MISSES):
                genes = self._next(solutions)
                if genes is None:
                    break
                if self.is_new(genes):
                    fruitless = 0
                    yield genes, f"{self.name}:{self.first()}"
                    break

    def _at(self, budgets: dict[str, float]) -> _Solutions:
        key = tuple(budgets.values())
        if key not in self._found:
            source, space = self.source, self.problem.space
            program = assemble(
                source.loss(self.first()),
                {name: source.cost(name) for name in budgets},
                {name: limit * (1 + 1e-12) - source.prices[name].base for name, limit in budgets.items()},
                space.tie_indices,
                allowed=space.allowed,
                pair_loss=self.pairs,
            )
            self._found[key] = _Solutions(program.problem)
        return self._found[key]

    def _next(self, solutions: _Solutions) -> IntArray | None:
        """The best that is left; it is cut off with its surroundings."""
        program = solutions.program
        done = solutions.spent or solutions.count == self.most
        picked = None if done else solve(program, gap=_GAP).picked
        if picked is None:
            solutions.spent = True
            return None
        solutions.count += 1
        same = np.zeros(program.loss.shape)
        same[np.arange(len(picked)), picked] = 1.0
        solutions.program = program.with_row(same, len(picked) - float(self.distance), "distance")
        return self.groups.contract(np.asarray(program.expand(picked), dtype=np.int64))
