"""What a search knows of its candidates, and the rounds of work that find out more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ..measurement import Measurement
from ..space import Configuration
from ..task import Split, Task
from .fidelity import affordable, successive_halving
from .part_estimates import LEAST, whole_from_part
from .problem import FLOAT, Problem, Proposal
from .progress import Advance, Progress
from .rungs import Ladder, OnSamples, Rivals
from .work import Outcome, Rounds, Work

Normal = tuple[float, float]
"""A mean and a standard deviation."""


@dataclass(frozen=True)
class Halving:
    """How candidates are screened on part of the validation data.

    Attributes:
        task: whose data.
        ladder: the rungs; the last is the whole split.
        factor: one of so many goes on.
    """

    task: Task
    ladder: Ladder
    factor: int

    @staticmethod
    def of(task: Task, samples: int = 32, factor: int = 4) -> Halving:
        """Rungs of ``samples`` validation samples, ``factor`` times as many, and so on to all of them.

        Raises:
            InvalidInput: a number out of range.
        """
        return Halving(task, Ladder.of(task, "validation", least=samples, factor=factor), factor)

    def contestants(self, evaluations: int, references: Sequence[Measurement]) -> int:
        """How many candidates may be screened for the price of so many whole evaluations.

        Args:
            evaluations: of the whole split.
            references: candidates measured on it; rungs that tell too little of them are not used.
        """
        return affordable(evaluations, self.ladder.telling(references).batches, self.factor)


@dataclass
class Measurements:
    """Proposals of one search and what came of them.

    Args:
        problem: prices and constraints.
        known: measurements of whole splits, of earlier runs too, by (configuration digest, split).
        partial: the longest measurement of the first validation samples, by configuration digest.
        progress: who watches.
        halving: whether candidates are screened on few samples first; ``None``: all are measured on the whole split.
        doomed: configurations that an earlier run could not measure, with the reason: once proposed, they have failed.

    Attributes:
        proposals: configuration -> who proposed it, in the order of proposal.
        failures: configuration -> why it has no measurement.
        screened: configurations that were out after part of the samples.
    """

    problem: Problem
    known: dict[tuple[str, Split], Measurement]
    progress: Progress
    partial: dict[str, Measurement] = field(default_factory=dict)
    halving: Halving | None = None
    doomed: dict[Configuration, str] = field(default_factory=dict)
    proposals: dict[Configuration, str] = field(default_factory=dict)
    failures: dict[Configuration, str] = field(default_factory=dict)
    screened: set[Configuration] = field(default_factory=set)
    _advance: Advance | None = field(default=None, repr=False)

    def of(self, configuration: Configuration, split: Split = "validation") -> Measurement | None:
        """The measurement on a whole split, if there is one."""
        return self.known.get((configuration.digest, split))

    def quality(self, configuration: Configuration) -> float:
        """Measured on the validation data; infinite if it is not known."""
        found = self.of(configuration)
        return found.value if found else float("inf")

    def measured(self) -> list[Configuration]:
        """The candidates with a measurement of the whole validation split, in the order of proposal."""
        return [found for found in self.proposals if found != FLOAT and self.of(found)]

    def seconds(self) -> float | None:
        """Median of a whole evaluation on the validation data; ``None`` before there is one."""
        found = [each.seconds for (_, split), each in self.known.items() if split == "validation"]
        return float(np.median(found)) if found else None

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[None]:
        """One progress bar for all that is measured inside, in evaluations of a whole split."""
        with self.progress.stage(name, total) as self._advance:
            try:
                yield
            finally:
                self._advance = None

    def arrived(self, outcome: Outcome) -> None:
        """Move the bar by an outcome: part of the samples is part of an evaluation. The float model counts nothing."""
        work, found = outcome.work, outcome.measurement
        if self._advance is None or work.configuration == FLOAT:
            return
        whole = self.of(FLOAT, work.split)
        if found is None or whole is None:
            self._advance(1)
            return
        self._advance((found.samples - (work.known.samples if work.known else 0)) / whole.samples)

    def measure(self, name: str, proposals: Sequence[Proposal], split: Split = "validation") -> Rounds:
        """Ask for what is not known of whole splits."""
        if split == "validation":
            self._propose(proposals)
        missing = [
            Work(proposal.configuration, split, known=self._part(proposal.configuration, split))
            for proposal in proposals
            if self.of(proposal.configuration, split) is None and proposal.configuration not in self.failures
        ]
        asked = {work.configuration for work in missing}
        self._reused(name, [each for each in proposals if each.configuration not in asked], len(proposals))
        if not missing:
            return
        outcomes = yield missing
        for outcome in outcomes:
            self._take(outcome)

    def contestants(self, evaluations: int) -> int:
        """How many candidates a round of so many evaluations may have; more where they are screened on few samples."""
        return self.halving.contestants(evaluations, self.references()) if self.halving and evaluations else evaluations

    def references(self) -> list[Measurement]:
        """Every candidate's measurement of the whole validation split."""
        return [found for each in self.measured() if (found := self.of(each)) is not None]

    def halve(
        self,
        name: str,
        proposals: Sequence[Proposal],
        keep: int,
        foretold: Mapping[Configuration, Normal] | None = None,
    ) -> Rounds:
        """Screen candidates on the first samples; the better ones are measured on the whole split.

        Only rungs are used that tell enough of the whole split. Who goes on is judged by the precision-weighted mean
        of what the part tells of the whole (``whole_from_part``) and what was foretold.

        Args:
            name: of the round.
            proposals: the contestants.
            keep: at least so many reach the whole split.
            foretold: quality of contestants by the surrogate, and its standard deviation.
        """
        assert self.halving is not None
        self._propose(proposals)
        references = self.references()
        task, ladder = self.halving.task, self.halving.ladder.telling(references)
        contestants = [each.configuration for each in proposals if each.configuration not in self.failures]
        costs = {} if self.problem.constraints else {each: self._costs(each) for each in contestants}
        rivals = {
            each: found
            for each in self.measured()
            if each not in contestants and self._meets(each) and (found := self.of(each))
        }
        prices = {each: self._costs(each) for each in [*rivals, *contestants]} if costs else {}
        part = {each: found for each in contestants if (found := self.of(each) or self.partial.get(each.digest))}
        self._reused(name, [each for each in proposals if self.of(each.configuration)], len(proposals))
        race = Rivals(
            task, rivals, prices, base=min(self.quality(FLOAT), *map(self.quality, rivals)) if rivals else 0.0
        )
        on = OnSamples(task, lambda each: each, measured=part, race=race)
        bracket = successive_halving(
            contestants,
            ladder.batches,
            costs=costs,
            known=on.known,
            factor=self.halving.factor,
            keep=keep,
            worth=partial(_worth, references, foretold or {}),
        )
        yield from on.rounds(bracket)
        self.failures |= on.failures
        for each, found in on.measured.items():
            if found.partial:
                self.partial[each.digest] = found
                self.screened.add(each)
            else:
                self.known[each.digest, "validation"] = found

    def spent(self, proposals: Sequence[Proposal]) -> float:
        """What a round has cost in evaluations of the whole validation data, whoever ran them and when."""
        whole, total = self.of(FLOAT), 0.0
        for each in proposals:
            part = self.of(each.configuration) or self.partial.get(each.configuration.digest)
            total += part.samples / whole.samples if part and whole else 1.0
        return total

    def _reused(self, name: str, known: Sequence[Proposal], proposed: int) -> None:
        """Say what the store had already, and move the bar by it."""
        if not known:
            return
        self.progress.status(f"{name}: {len(known)} of {proposed} already in the store")
        if self._advance is not None:
            self._advance(len([each for each in known if each.configuration != FLOAT]))

    def _meets(self, configuration: Configuration) -> bool:
        return bool(self.problem.meets(self.problem.space.choice(configuration)[None])[0])

    def _costs(self, configuration: Configuration) -> tuple[float, ...]:
        prices = self.problem.prices.of(configuration)
        return tuple(prices[name].value for name in self.problem.price_objectives)

    def _part(self, configuration: Configuration, split: Split) -> Measurement | None:
        return self.partial.get(configuration.digest) if split == "validation" else None

    def _propose(self, proposals: Sequence[Proposal]) -> None:
        for proposal in proposals:
            self.proposals.setdefault(proposal.configuration, proposal.origin)
            if proposal.configuration in self.doomed:
                self.failures.setdefault(proposal.configuration, self.doomed[proposal.configuration])

    def _take(self, outcome: Outcome) -> None:
        work = outcome.work
        if outcome.measurement is None:
            self.failures[work.configuration] = outcome.failure
        else:
            self.known[work.configuration.digest, work.split] = outcome.measurement


def _worth(
    references: Sequence[Measurement],
    foretold: Mapping[Configuration, Normal],
    configuration: Configuration,
    found: Measurement,
) -> float:
    """Quality on the whole split, from a part of it and what was foretold; the measured one where it is the whole."""
    if not found.partial or len(references) < LEAST:
        return found.value
    value, error = whole_from_part(found, references)
    mean, deviation = foretold.get(configuration, (value, np.inf))
    if not deviation > 0:
        return mean
    share = error**2 / (error**2 + deviation**2) if np.isfinite(deviation) else 0.0
    return float((1 - share) * value + share * mean)
