"""A population of formulas on one island, and the births on it.

As EMQ (Dong et al. 2023, arXiv:2307.10554, section 4 and algorithm 1): parents come by tournament from the better
half, offspring by crossover and mutation, and some compete with a fresh random formula (diversity prompting); the
better of the two enters and the worst leaves. Beyond it: no formula enters that ranks configurations as one that was
tried before, of formulas that are equally fit to two digits the smaller wins (lexicographic parsimony, Luke and Panait
2002), operators are drawn by how often formulas with them survive, some offspring join both parents whole (``join``),
and the first formulas are those of known proxies (``seeds``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...proxies.formulas import STRUCTURES, Formula, crossover, join, mutate, random_formula
from .operator_weights import OperatorWeights, operators
from .record import Record
from .scoring import Scorer
from .settings import EvolutionSettings

_DIGITS = 2  # of fitness, in which formulas must differ for the size not to decide
_PATIENCE = 25  # draws for each formula that a round may try: where the space of formulas is exhausted it ends


@dataclass(frozen=True)
class Individual:
    """A formula with its record."""

    formula: Formula
    record: Record

    @property
    def rank(self) -> tuple[float, int, float, str]:
        """Sorts the better first: coarse fitness, size, fitness."""
        value = self.record.value
        return -round(value, _DIGITS), self.record.size, -value, self.record.expression


@dataclass
class Island:
    """The state of one island; with the scorer's data it determines all that comes.

    Attributes:
        generator: of all its draws.
        members: the population.
        tried: digests of all formulas that were tried here.
        signatures: of all that got a fitness here.
        weights: of operators.
        seeds: formulas that are tried before any other.
    """

    generator: np.random.Generator
    members: list[Individual] = field(default_factory=list)
    tried: set[str] = field(default_factory=set)
    signatures: set[str] = field(default_factory=set)
    weights: OperatorWeights = field(default_factory=OperatorWeights)
    seeds: list[Formula] = field(default_factory=list)

    @staticmethod
    def first(settings: EvolutionSettings, index: int, seeds: Sequence[Formula] = ()) -> Island:
        """An empty island; islands draw apart, but begin with the same seeds."""
        return Island(np.random.default_rng([settings.seed, index]), seeds=list(seeds))

    def emigrants(self, count: int) -> list[Individual]:
        """Its best."""
        return sorted(self.members, key=lambda each: each.rank)[:count]


def advance(
    island: Island, scorer: Scorer, settings: EvolutionSettings, arrivals: Sequence[Individual] = ()
) -> list[Record]:
    """One round: take in those who arrive, then try as many formulas as ``settings.births``.

    Args:
        island: changed in place.
        scorer: tries formulas.
        settings: of the evolution.
        arrivals: from another island.

    Returns:
        Records of all formulas that were tried, in order; fewer than ``births`` where no new ones are found.
    """
    return _Round(island, scorer, settings).run(arrivals)


class _Round:
    def __init__(self, island: Island, scorer: Scorer, settings: EvolutionSettings) -> None:
        self.island, self.scorer, self.settings = island, scorer, settings
        self.inputs: Mapping[str, str] = {
            name: kind for name, kind in scorer.inputs.items() if not settings.inputs or name in settings.inputs
        }
        self.records: list[Record] = []
        self.draws = 0

    def run(self, arrivals: Sequence[Individual]) -> list[Record]:
        for each in arrivals:
            if each.record.signature not in self.island.signatures:
                self.island.tried.add(each.record.digest)
                self._enter(each)
        while len(self.records) < self.settings.births and self.draws < _PATIENCE * self.settings.births:
            self._birth()
        return self.records

    def _birth(self) -> None:
        """Seeds, then random formulas until the population is full; then an offspring, and its competitor."""
        island, generator = self.island, self.island.generator
        if island.seeds:
            born = [self._tried(lambda: island.seeds.pop(0))]
        elif len(island.members) < self.settings.population:
            born = [self._tried(self._random)]
        else:
            born = [self._tried(self._offspring)]
            if generator.random() < self.settings.prompting:
                born.append(self._tried(self._random))
        rivals = sorted((each for each in born if each is not None), key=lambda each: each.rank)
        for place, each in enumerate(rivals):
            island.weights.count(operators(each.formula), survived=place == 0 and self._enter(each))

    def _tried(self, draw: Callable[[], Formula]) -> Individual | None:
        """Draw a formula that is new here and try it; ``None`` if it has no fitness."""
        self.draws += 1
        formula = draw()
        if formula.digest in self.island.tried:
            return None
        self.island.tried.add(formula.digest)
        record = self.scorer.attempt(formula, self.island.signatures)
        self.records.append(record)
        if record.fitness is None:
            self.island.weights.count(operators(formula), survived=False)
            return None
        return Individual(formula, record)

    def _enter(self, new: Individual) -> bool:
        """Whether it is among the best that the population has place for; then the worst leaves."""
        island = self.island
        island.signatures.add(new.record.signature)
        island.members.append(new)
        if len(island.members) <= self.settings.population:
            return True
        worst = max(island.members, key=lambda each: each.rank)
        island.members.remove(worst)
        return worst is not new

    def _random(self) -> Formula:
        generator = self.island.generator
        structure = STRUCTURES[generator.integers(len(STRUCTURES))]
        weights = self.island.weights.weights()
        return random_formula(generator, self.inputs, weights, structure, max_size=self.settings.max_size)

    def _offspring(self) -> Formula:
        generator, settings = self.island.generator, self.settings
        crossed, mutated = generator.random() < settings.crossover, generator.random() < settings.mutation
        formula = self._parent()
        if crossed:
            bred = join if generator.random() < settings.joining else crossover
            formula = bred(formula, self._parent(), generator, self.inputs, max_size=settings.max_size)
        if mutated or not crossed:  # a mere copy would be no offspring
            weights = self.island.weights.weights()
            formula = mutate(formula, generator, self.inputs, weights, max_size=settings.max_size)
        return formula

    def _parent(self) -> Formula:
        """The best of a few of the better half."""
        members = sorted(self.island.members, key=lambda each: each.rank)
        half = (len(members) + 1) // 2
        drawn = self.island.generator.integers(half, size=self.settings.tournament)
        return members[int(drawn.min())].formula
