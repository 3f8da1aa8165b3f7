"""Evolution of formulas: from training benches to the archive of the fittest, kept in a store as it goes.

Restart: an evolution is replayed from its seed, and what the store knows is looked up instead of scored, so a killed
run comes to the same archive as an undisturbed one. Each round of an island is committed when it is finished; a kill
costs the rounds under way, less than a second of work.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...errors import InvalidInput
from ...store import Store
from ..progress import Progress, Silent
from .archive import Archive
from .bench_data import BenchData, common_inputs
from .islands import Islands, LocalIslands, migrations
from .population import Individual
from .record import Record
from .scoring import Scorer, context_of
from .settings import EvolutionSettings


@dataclass(frozen=True)
class Evolution:
    """What an evolution found.

    Attributes:
        archive: fitness against size.
        context: digest of all that a fitness depends on; the key in the store.
        networks: whose configurations formulas were chosen on.
        settings: of the evolution.
        tried: formulas that were born, on all islands.
        scored: of them with a fitness.
        screened: of them without usable numbers.
        computed: how many of them were not known from before.
        seconds: wall time.
        exhausted: whether it ended because no new formula could be found.
    """

    archive: Archive
    context: str
    networks: tuple[str, ...]
    settings: EvolutionSettings
    tried: int
    scored: int
    screened: int
    computed: int
    seconds: float
    exhausted: bool

    @property
    def chosen(self) -> Record:
        """The formula to judge elsewhere; see ``Archive.chosen``."""
        return self.archive.chosen()

    @property
    def per_minute(self) -> float:
        """Formulas tried and not known from before, a minute."""
        return 60 * self.computed / self.seconds if self.seconds > 0 else 0.0


def evolve(
    benches: Sequence[BenchData],
    *,
    settings: EvolutionSettings | None = None,
    seconds: float | None = None,
    formulas: int | None = None,
    store: Store | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Evolution:
    """Evolve formulas on the configurations of some networks.

    Args:
        benches: the training configurations, one bench a network; nothing else is looked at.
        settings: of the evolution.
        seconds: stop after the round in which this wall time is over.
        formulas: stop after the round in which so many were tried.
        store: what it knows is not scored again; ``None``: nothing is kept.
        workers: 1: this process; more: Ray actors. The result does not depend on it, unless ``seconds`` ends it.
        progress: who watches.

    Returns:
        The archive and what it took.

    Raises:
        InvalidInput: no limit, no bench, or an input that no bench has.
    """
    chosen, watch = settings or EvolutionSettings(), progress or Silent()
    if seconds is None and formulas is None:
        raise InvalidInput("an evolution has no end of its own; give seconds or formulas")
    for name, value in (("seconds", seconds), ("formulas", formulas), ("workers", workers)):
        if value is not None and value <= 0:
            raise InvalidInput(f"{name}={value}; it must be positive")
    context = context_of(benches, chosen)
    known = [Record.of(row) for row in store.formulas(context)] if store else []
    if known:
        watch.note(f"evolve: {len(known)} formulas are already in the store")
    _check_inputs(benches, chosen)
    islands = _islands(benches, chosen, known, workers)
    started = time.perf_counter()  # starting Ray takes seconds that are not the evolution's
    run = _Run(context, store, started, seconds, formulas)
    try:
        total = formulas if formulas is not None else max(1, round(seconds or 0))
        with watch.stage("evolve formulas", total) as advance:
            run.go(islands, chosen, lambda tried, spent: advance(tried if formulas is not None else spent))
    finally:
        islands.close()
    return Evolution(
        run.archive,
        context,
        tuple(bench.name for bench in benches),
        chosen,
        run.tried,
        run.scored,
        run.screened,
        run.computed,
        time.perf_counter() - started,
        run.exhausted,
    )


class _Run:
    """The rounds of one evolution, and what is counted in them."""

    def __init__(
        self, context: str, store: Store | None, started: float, seconds: float | None, formulas: int | None
    ) -> None:
        self.context, self.store = context, store
        self.started, self.seconds, self.formulas = started, seconds, formulas
        self.archive = Archive()
        self.tried = self.scored = self.screened = self.computed = 0
        self.exhausted = False

    def go(self, islands: Islands, settings: EvolutionSettings, told: Callable[[int, int], None]) -> None:
        """Round after round until a limit is reached."""
        nobody: list[tuple[Individual, ...]] = [()] * settings.islands
        arrivals, rounds, spent = nobody, 0, 0
        while not self._over():
            reports, before = [], self.tried
            for report in islands.round(arrivals):
                self._take(report.records, report.computed)
                reports.append(report)
                now = round(time.perf_counter() - self.started)
                told(len(report.records), now - spent)
                spent = now
            rounds += 1
            arrivals = migrations(reports) if rounds % settings.migration == 0 else nobody
            if self.tried == before:
                self.exhausted = True
                return

    def _take(self, records: Sequence[Record], computed: int) -> None:
        if self.store is not None and computed:
            self.store.save_formulas(self.context, [record.row() for record in records])
        self.archive = self.archive.with_(records)
        self.tried += len(records)
        self.computed += computed
        self.scored += sum(record.fitness is not None for record in records)
        self.screened += sum(not record.signature for record in records)

    def _over(self) -> bool:
        if self.formulas is not None and self.tried >= self.formulas:
            return True
        return self.seconds is not None and time.perf_counter() - self.started >= self.seconds


def _check_inputs(benches: Sequence[BenchData], settings: EvolutionSettings) -> None:
    shared = common_inputs(benches)
    for name in settings.inputs:
        if name not in shared:
            near = difflib.get_close_matches(name, shared, n=1, cutoff=0.0)[0]
            raise InvalidInput(f"inputs: the benches do not share {name!r}; did you mean {near!r}?")


def _islands(
    benches: Sequence[BenchData], settings: EvolutionSettings, known: Sequence[Record], workers: int
) -> Islands:
    if workers == 1:
        return LocalIslands(Scorer(benches, settings, known), settings)
    from .ray_islands import RayIslands

    return RayIslands(benches, settings, known, workers)
