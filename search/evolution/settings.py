"""What an evolution of formulas can be told."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import InvalidInput
from ...proxies.formulas import MAX_SIZE


@dataclass(frozen=True)
class EvolutionSettings:
    """Settings of an evolution; the same settings, seed and benches give the same formulas.

    Attributes:
        seed: of every draw.
        islands: populations that evolve apart; the result depends on it, not on how many workers run them.
        population: formulas of an island (EMQ: 50).
        tournament: formulas of the better half that a parent is the best of.
        crossover: probability that an offspring has two parents (EMQ: 0.5).
        joining: probability that two parents are joined whole instead of exchanging parts.
        mutation: probability that it is mutated (EMQ: 0.5).
        prompting: probability that it competes with a fresh random formula (diversity prompting). EMQ: always; half of
            all formulas are random ones then, and fewer gave fitter ones for the same number tried.
        births: formulas that an island tries between two commits.
        migration: rounds of ``births`` between two migrations.
        migrants: formulas that an island sends to the next.
        max_size: nodes of a formula.
        inputs: names of the statistics that formulas may use; empty: all that the benches share.
        folds: of the configurations of each network, for the spread of the fitness.
        penalty: what a standard deviation of the correlation over networks and folds costs.
        extremes: share of the fitness that asks how good the configurations are that are predicted best (``extremes``).
        seeded: whether the formulas of known proxies are tried first (``seeds``); evolution then goes on from them.
        probes: random configurations by whose ranks formulas are told apart.
        memo_mb: megabytes of sub-expressions that a worker keeps.
    """

    seed: int = 0
    islands: int = 4
    population: int = 50
    tournament: int = 4
    crossover: float = 0.5
    joining: float = 0.25
    mutation: float = 0.5
    prompting: float = 0.2
    births: int = 16
    migration: int = 8
    migrants: int = 2
    max_size: int = MAX_SIZE
    inputs: tuple[str, ...] = ()
    folds: int = 4
    penalty: float = 0.5
    extremes: float = 0.0
    seeded: bool = True
    probes: int = 96
    memo_mb: int = 128

    def __post_init__(self) -> None:
        for name in ("islands", "tournament", "births", "migration", "probes"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name}={getattr(self, name)}; it must be at least 1")
        if self.population < 4:
            raise InvalidInput(f"population={self.population}; give at least 4 formulas to choose parents from")
        for name in ("crossover", "joining", "mutation", "prompting", "extremes"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidInput(f"{name}={getattr(self, name)}; it must lie between 0 and 1")
        if not 0 <= self.migrants < self.population // 2:
            raise InvalidInput(f"migrants={self.migrants}; less than half of the population of {self.population}")
