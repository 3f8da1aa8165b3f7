"""What a joint search knows of its genomes: proposed, measured, failed; and the rounds of work that find out more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from ...architecture import Choices, Genome
from ...measurement import Measurement
from ...task import Split
from ..progress import Advance, Progress
from ..work import Outcome, Rounds, Work
from .evaluation import genome_of

_FAILED = 2  # failures, and no measurement, after which an architecture is given up


@dataclass
class Genomes:
    """Genomes of one search and what came of them.

    Args:
        known: measurements of whole splits, of earlier runs too, by (genome digest, split).
        progress: who watches.
        lost: why an earlier run could not measure a genome, so that it is not tried again; ``None``: it is not known to
            fail.

    Attributes:
        origins: genome -> who proposed it, in the order of proposal.
        failures: genome -> why it has no measurement.
        reused: measurements that earlier runs had made.
        ran: measurements made now.
    """

    known: dict[tuple[str, Split], Measurement]
    progress: Progress
    lost: Callable[[Genome], str | None] = field(default=lambda genome: None, repr=False)
    origins: dict[Genome, str] = field(default_factory=dict)
    failures: dict[Genome, str] = field(default_factory=dict)
    reused: int = 0
    ran: int = 0
    _advance: Advance | None = field(default=None, repr=False)

    def of(self, genome: Genome, split: Split = "validation") -> Measurement | None:
        """The measurement, if there is one."""
        return self.known.get((genome.digest, split))

    def measured(self) -> list[Genome]:
        """The quantized genomes with a measurement on the validation data, in the order of proposal."""
        return [each for each in self.origins if each.configuration.pairs and self.of(each) is not None]

    def broken(self, choices: Choices) -> bool:
        """Whether an architecture gave nothing but failures, at least two: it is not tried any more."""
        own = [each for each in self.origins if each.choices == choices]
        return sum(each in self.failures for each in own) >= _FAILED and all(self.of(each) is None for each in own)

    @property
    def tried(self) -> set[Choices]:
        """Architectures of which a genome was proposed and measured.

        What only the store knows does not count: a search alone proposes the same.
        """
        return {each.choices for each in self.origins if self.of(each) is not None}

    def seconds(self) -> float | None:
        """Median of an evaluation on the validation data; ``None`` before there is one."""
        found = [each.seconds for (_, split), each in self.known.items() if split == "validation"]
        return float(np.median(found)) if found else None

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[None]:
        """One progress bar for all that is measured inside."""
        with self.progress.stage(name, total) as self._advance:
            try:
                yield
            finally:
                self._advance = None

    def measure(self, name: str, genomes: Sequence[Genome], origin: str, split: Split = "validation") -> Rounds:
        """A round of work for what is not known; what is known is only told."""
        wanted = list(dict.fromkeys(genomes))
        for each in wanted:
            self.origins.setdefault(each, origin)
            if self.of(each) is None and (reason := self.lost(each)) is not None:
                self.failures[each] = reason
        known = [each for each in wanted if self.of(each, split) is not None]
        self.reused += len(known)
        if known:
            self.progress.status(f"{name}: {len(known)} of {len(wanted)} already in the store")
            self._advanced(len(known))
        works = [
            Work(each.configuration, split, architecture=each.choices)
            for each in wanted
            if self.of(each, split) is None and each not in self.failures
        ]
        if works:
            for outcome in (yield works):
                self._take(outcome)

    def arrived(self, outcome: Outcome) -> None:
        """One outcome is committed."""
        self.ran += 1
        self._advanced(1)

    def _take(self, outcome: Outcome) -> None:
        genome = genome_of(outcome.work)
        if outcome.measurement is None:
            self.failures[genome] = outcome.failure
        else:
            self.known[genome.digest, outcome.work.split] = outcome.measurement

    def _advanced(self, count: int) -> None:
        if self._advance is not None:
            self._advance(count)
