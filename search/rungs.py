"""Rungs of data: the first batches of a split as resources of successive halving, and rivals for races."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic

import numpy as np

from ..errors import InvalidInput
from ..evaluators import Race, smallest_value
from ..measurement import Measurement
from ..space import Configuration
from ..task import Split, Task
from .fidelity import FACTOR, Bracket, Key, Request, Standing
from .part_estimates import LEAST, part_error
from .work import Outcome, Work

FACTOR_OF_RIVAL = 2.0  # see Rivals
MOST_ERROR = 0.2  # see Ladder.telling


@dataclass(frozen=True)
class Ladder:
    """The rungs of a split: numbers of batches, and of the samples in them.

    Attributes:
        batches: ascending; the last is the largest fidelity.
        samples: in so many batches.
    """

    batches: tuple[int, ...]
    samples: tuple[int, ...]

    def telling(self, references: Sequence[Measurement], most: float = MOST_ERROR) -> Ladder:
        """Without the rungs that tell too little of the whole split to choose by, such as those where few samples hold
        most of the loss and the first ones none of them.

        Args:
            references: candidates measured on the whole split; with fewer than 4 only the last rung is left.
            most: largest relative standard error of what a rung foretells (``part_error``).

        Returns:
            The rungs from the first that tells enough.
        """
        first = len(self.samples) - 1
        if len(references) > LEAST:
            while first and part_error(references, self.samples[first - 1]) <= most:
                first -= 1
        return Ladder(self.batches[first:], self.samples[first:])

    @staticmethod
    def of(task: Task, split: Split, *, least: int = 16, factor: int = FACTOR, most: int | None = None) -> Ladder:
        """Rungs of ``least`` samples, ``factor`` times as many, …, whole batches each, up to the whole split.

        Args:
            task: whose batches.
            split: which data.
            least: samples of the first rung.
            factor: between rungs.
            most: samples of the last rung; default: all. A larger one later adds rungs, and changes none.

        Raises:
            InvalidInput: a number out of range.
        """
        ends = np.cumsum([len(batch) for batch in task.split(split)])
        top = int(ends[-1]) if most is None else min(most, int(ends[-1]))
        if least < 1 or factor < 2 or top < 1:
            raise InvalidInput(f"least={least}, factor={factor}, most={most}; give at least 1, 2 and 1")
        wanted = [least * factor**power for power in range(64) if least * factor**power < top] + [top]
        rungs = sorted({int(np.searchsorted(ends, samples)) for samples in wanted})
        return Ladder(tuple(rung + 1 for rung in rungs), tuple(int(ends[rung]) for rung in rungs))


@dataclass
class OnSamples(Generic[Key]):
    """Makes rounds of work of a bracket whose resources are batches of a split.

    Args:
        task: whose data.
        configuration: of a contestant.
        split: which data.
        measured: the longest measurement of each contestant that is known; kept up to date.
        race: the race of a contestant over the whole split, or ``None``; such as ``Rivals``.

    Attributes:
        lost: contestants that lost a race: their measurements are partial ones, and they are not better.
        failures: contestants without a measurement, with the reason.
    """

    task: Task
    configuration: Callable[[Key], Configuration]
    split: Split = "validation"
    measured: dict[Key, Measurement] = field(default_factory=dict)
    race: Callable[[Key], Race | None] = lambda contestant: None
    lost: set[Key] = field(default_factory=set)
    failures: dict[Key, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ends = [int(end) for end in np.cumsum([len(batch) for batch in self.task.split(self.split)])]

    def known(self, contestant: Key, batches: int) -> Measurement | None:
        """For the bracket: whoever was seen on more samples was seen on the first of them."""
        found, samples = self.measured.get(contestant), self._ends[batches - 1]
        return found.beginning(samples) if found is not None and found.samples >= samples else None

    def rounds(self, bracket: Bracket[Key]) -> Generator[list[Work], list[Outcome], Standing[Key]]:
        """The bracket as rounds of work; ``yield from`` gives its standing."""
        try:
            requests = next(bracket)
            while True:
                outcomes = yield [self._work(request) for request in requests]
                requests = bracket.send(
                    [self._take(request.contestant, one) for request, one in zip(requests, outcomes, strict=True)]
                )
        except StopIteration as end:
            standing: Standing[Key] = end.value
            return standing

    def _work(self, request: Request[Key]) -> Work:
        each = request.contestant
        batches = None if request.resource == len(self._ends) else request.resource
        return Work(self.configuration(each), self.split, batches, self.measured.get(each), self.race(each))

    def _take(self, contestant: Key, outcome: Outcome) -> Measurement | None:
        if outcome.measurement is None:
            self.failures[contestant] = outcome.failure
            return None
        self.measured[contestant] = outcome.measurement
        if outcome.lost:
            self.lost.add(contestant)
            return None
        return outcome.measurement


class Rivals(Generic[Key]):
    r"""For each contestant the best of what was measured in full and costs no more: who is surely worse is dominated.

    The race is about the whole split, also while a contestant runs on its first samples only: it stops where it is
    refuted that the contestant is within the margin on all samples. (A race about the first samples alone would end
    with certainty after the last of them, and stop whoever is behind there by chance.)

    The margin keeps what a search learns from: a contestant may have :math:`b + r (q - b)` with the rival's quality q,
    the float model's quality b and the factor r.

    Args:
        task: whose metric; where it has no known smallest value there are no races.
        measured: measurements of the whole split, of candidates that meet the constraints. Others may be far better
            than any that does (uniform 8 bits where 3 are allowed), and everyone would lose against them.
        costs: prices of contestants and rivals; empty for a constrained problem, where all compare.
        error: largest probability that a candidate that is not worse is stopped.
        factor: r, at least 1.
        base: b; 0 where the metric compares with the float model.

    Raises:
        InvalidInput: a factor below 1.
    """

    def __init__(
        self,
        task: Task,
        measured: Mapping[Key, Measurement],
        costs: Mapping[Key, Sequence[float]],
        error: float = 0.05,
        factor: float = FACTOR_OF_RIVAL,
        base: float = 0.0,
    ) -> None:
        if not factor >= 1:
            raise InvalidInput(f"factor={factor}; a rival allows at least its own quality, so give 1 or more")
        self._floor = smallest_value(task)
        self._rivals = {each: one for each, one in measured.items() if not one.partial}
        self._costs = costs
        self._error = error
        self._factor, self._base = factor, base
        self._races: dict[Key, Race] = {}

    def __call__(self, contestant: Key) -> Race | None:
        """The race of a contestant."""
        if self._floor is None:
            return None
        mine = self._costs.get(contestant, ())
        cheaper = [each for each in self._rivals if each != contestant and self._no_dearer(each, mine)]
        if not cheaper:
            return None
        best = min(cheaper, key=lambda each: self._rivals[each].value)
        if best not in self._races:
            rival = self._rivals[best]
            self._races[best] = Race(np.array(rival.values), self._error, self._margin(rival), self._floor)
        return self._races[best]

    def _margin(self, rival: Measurement) -> float:
        """In the unit of the values of the samples, which for perplexity are its logarithms."""
        more = (self._factor - 1) * max(0.0, rival.value - self._base)
        return math.log1p(more / rival.value) if rival.metric == "perplexity" else more

    def _no_dearer(self, each: Key, prices: Sequence[float]) -> bool:
        return all(a <= b for a, b in zip(self._costs.get(each, ()), prices, strict=True))
