"""Work and outcomes: what a search asks its executor, and what it is told."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

from ..architecture import Choices
from ..evaluators import Race
from ..measurement import Measurement
from ..space import Configuration
from ..task import Split


@dataclass(frozen=True)
class Work:
    """One evaluation to do.

    Attributes:
        configuration: what is measured.
        split: on which data.
        batches: only on the first so many of its batches (a fidelity); ``None``: on all.
        known: an earlier measurement of the first samples: only the others are run, and the outcome covers both.
        race: stops the evaluation once the candidate is worse than the rival; the outcome is then a partial one.
        architecture: of which network of a family; ``None``: the model of the task.
    """

    configuration: Configuration
    split: Split = "validation"
    batches: int | None = None
    known: Measurement | None = None
    race: Race | None = None
    architecture: Choices | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of it: a measurement, or the reason why there is none.

    Attributes:
        work: what was asked.
        measurement: the result; ``None`` when it failed.
        failure: why it failed; empty when it did not.
        worker: who did it.
        final: whether a failure would come again (an output that is not finite), or its cause is not known for sure
            (workers that died).
    """

    work: Work
    measurement: Measurement | None
    failure: str = ""
    worker: str = "local"
    final: bool = True

    @property
    def lost(self) -> bool:
        """Whether the candidate lost its race: it is worse than the rival, so do not count it as better.

        Its measurement is then a partial one, unless only the last samples decided.
        """
        race, found = self.work.race, self.measurement
        return race is not None and found is not None and race.lost(found.values)


def in_order(batch: Sequence[Work], arrived: Mapping[int, Outcome]) -> list[Outcome]:
    """Outcomes, by the index of their work, in the order of the work."""
    return [arrived[index] for index in range(len(batch))]


#: A search as a coroutine: yields the work of a round, is sent its outcomes, and ends when it has nothing more to ask.
Rounds = Generator[list[Work], list[Outcome], None]
Commit = Callable[[Outcome], None]
