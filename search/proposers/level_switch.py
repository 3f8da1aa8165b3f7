"""Level-switch evolution: one group goes up, others go down, and the budget holds.

EvoPress (O. Sieberling, D. Kuznedelev, E. Kurtic, D. Alistarh, arXiv:2410.14649, section 3): a (1 + lambda) evolution
whose mutation raises the level of one unit and lowers that of another, so that the size stays the same. There units of
a switch have the same size. Here groups have any size and budgets are on any prices, so a switch is

- up: a random group takes the next finer format, and random other groups go down until all budgets hold, exactly; or
- down: a random group takes the next coarser format;

and what the budget leaves is spent on other groups, one step each, until not one more step fits (``repair.py``). The
number of switches in a child is the smaller of two draws from {1, 2, 3}, as in the authors' code. The parent is the
best configuration measured at the level of the turn (``levels.py``), whoever proposed it; lambda is what is asked for
between two rounds of results. Staged selection on growing subsets is left to the fidelities of the search.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from ...errors import InvalidInput
from ..groups import IntArray
from ..problem import Problem
from .base import BaseProposer
from .levels import Level, Levels
from .limits import Limits
from .repair import filled, repaired

Start = Literal["exact", "random"]
_MISSES = 20  # children in a row that are not new; then the level is left until its parent is another one


class LevelSwitch(BaseProposer):
    """(1 + lambda) evolution with switches that keep the budget.

    Args:
        problem: the problem.
        seed: of the mutations.
        start: where a level without a measured configuration begins: ``"exact"``, the optimum of the additive scores,
            or ``"random"``, random formats brought to the budget (as EvoPress without scores).
    """

    name = "level_switch"

    def __init__(self, problem: Problem, seed: int = 0, start: Start = "exact") -> None:
        super().__init__(problem, seed)
        if start not in ("exact", "random"):
            raise InvalidInput(f"start={start!r}; choose 'exact' or 'random'")
        self.start = start
        self.levels = Levels(problem)
        self._begun: dict[tuple[float, ...], IntArray] = {}
        self._spent: set[tuple[tuple[float, ...], bytes]] = set()

    def candidates(self) -> Iterator[tuple[IntArray, str]]:
        """A child of one level after the other, until no level gives a new one."""
        told = self.inside()
        fruitless = 0
        while fruitless < self.levels.count(told):
            fruitless += 1
            level = self.levels.take(told)
            key = (tuple(level.budgets.values()), b"" if level.parent is None else level.parent.tobytes())
            if key in self._spent:
                continue
            child = next((each for each in self._children(level) if self.is_new(each)), None)
            if child is None:
                self._spent.add(key)
            else:
                fruitless = 0
                yield child, self.name

    def _children(self, level: Level) -> Iterator[IntArray]:
        """The start of the level, then mutants of its parent."""
        parent = level.parent
        genes = self._started(level) if parent is None else self.groups.contract(parent)
        if genes is None:
            return
        if parent is None:
            yield genes
        limits = Limits.of(self.problem, self.groups, level.budgets)
        for _ in range(_MISSES):
            yield from self.switched(genes, limits)

    def switched(self, genes: IntArray, limits: Limits) -> Iterator[IntArray]:
        """A child within the limits: first with all of the budget spent, then as it was before that."""
        allowed, generator = self.groups.allowed, self.generator
        child, moved = genes.copy(), np.zeros(len(genes), dtype=bool)
        for _ in range(min(generator.integers(1, 4, size=2))):
            direction = 1 if generator.random() < 0.5 else -1
            beyond = allowed & (direction * (np.arange(allowed.shape[1]) - child[:, None]) > 0) & ~moved[:, None]
            movable = np.flatnonzero(beyond.any(axis=1))
            if len(movable):
                group = int(movable[generator.integers(len(movable))])
                columns = np.flatnonzero(beyond[group])
                child[group] = columns[0] if direction > 0 else columns[-1]
                moved[group] = True
        kept = repaired(child, limits, allowed, generator, keep=moved)
        if kept is not None:
            yield filled(kept, limits, allowed, generator, keep=moved | (kept != genes))
            yield kept

    def _started(self, level: Level) -> IntArray | None:
        key = tuple(level.budgets.values())
        if key not in self._begun:
            if self.start == "exact":
                proxy = next(iter(self.problem.sensitivities))
                budgets = {name: limit * (1 + 1e-12) for name, limit in level.budgets.items()}
                optimum = self.problem.solve(proxy, budgets)
                self._begun[key] = self.groups.contract(self.problem.space.choice(optimum))
            else:
                limits = Limits.of(self.problem, self.groups, level.budgets)
                noise = np.where(self.groups.allowed, self.generator.random(self.groups.allowed.shape), -1.0)
                drawn = repaired(noise.argmax(axis=1).astype(np.int64), limits, self.groups.allowed, self.generator)
                if drawn is None:
                    return None
                self._begun[key] = filled(
                    drawn, limits, self.groups.allowed, self.generator, np.zeros(len(drawn), dtype=bool)
                )
        return self._begun[key]
