"""Islands that evolve in rounds, with migration around a ring; run here or by Ray workers, with the same result.

A round of an island is a function of its state and of who arrives, so it does not matter who runs it. All islands
finish a round before the next begins, and every few rounds the best of each go to the next island of the ring.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from .population import Individual, Island, advance
from .record import Record
from .scoring import Scorer
from .seeds import seeds_for
from .settings import EvolutionSettings


@dataclass(frozen=True)
class Report:
    """What came of a round of one island.

    Attributes:
        island: which.
        records: of all formulas that were tried.
        computed: how many of them were not known already.
        emigrants: its best.
    """

    island: int
    records: tuple[Record, ...]
    computed: int
    emigrants: tuple[Individual, ...]


class Islands(Protocol):
    """Runs the rounds of all islands."""

    def round(self, arrivals: Sequence[Sequence[Individual]]) -> Iterator[Report]:
        """One round of every island, reported as they finish.

        Args:
            arrivals: who arrives on each island.
        """
        ...

    def close(self) -> None:
        """Give back what was used."""
        ...


class LocalIslands:
    """Islands in this process, one after the other.

    Args:
        scorer: tries formulas.
        settings: of the evolution.
    """

    def __init__(self, scorer: Scorer, settings: EvolutionSettings) -> None:
        self._scorer, self._settings = scorer, settings
        seeds = seeds_for(scorer.inputs, settings)
        self._islands = [Island.first(settings, index, seeds) for index in range(settings.islands)]

    def round(self, arrivals: Sequence[Sequence[Individual]]) -> Iterator[Report]:
        """See ``Islands.round``."""
        for index, (island, coming) in enumerate(zip(self._islands, arrivals, strict=True)):
            yield report_of(index, island, self._scorer, self._settings, coming)

    def close(self) -> None:
        """Nothing is held."""


def report_of(
    index: int, island: Island, scorer: Scorer, settings: EvolutionSettings, arrivals: Sequence[Individual]
) -> Report:
    """One round of one island, which is changed in place."""
    before = scorer.computed
    records = advance(island, scorer, settings, arrivals)
    return Report(index, tuple(records), scorer.computed - before, tuple(island.emigrants(settings.migrants)))


def migrations(reports: Sequence[Report]) -> list[tuple[Individual, ...]]:
    """Who arrives where: the emigrants of every island at the next one of the ring; nobody where there is but one."""
    if len(reports) < 2:
        return [()] * len(reports)
    ordered = sorted(reports, key=lambda each: each.island)
    return [each.emigrants for each in (ordered[-1], *ordered[:-1])]
