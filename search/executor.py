"""Executors: who really evaluates. Rounds of work go in, outcomes come out in the order in which they arrive."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from ..errors import NonFiniteOutput
from ..evaluators import Calibration, Evaluator, FakeQuantEvaluator, execution_key
from ..measurement import Measurement
from ..space import Configuration, SearchSpace
from ..task import Split, Task


@dataclass(frozen=True)
class Work:
    """One evaluation to do."""

    configuration: Configuration
    split: Split = "validation"


@dataclass(frozen=True)
class Outcome:
    """What came of it: a measurement, or the reason why there is none.

    Attributes:
        work: what was asked.
        measurement: the result; ``None`` when it failed.
        failure: why it failed; empty when it did not.
        worker: who did it.
    """

    work: Work
    measurement: Measurement | None
    failure: str = ""
    worker: str = "local"


@dataclass(frozen=True)
class EvaluatorRecipe:
    """What a worker needs to build its evaluator once.

    Attributes:
        task: model, data and metric.
        space: the sites.
        calibration: scales, codes and ranges.
        batch_norm: whether batch-norm statistics are estimated again for every configuration.
    """

    task: Task
    space: SearchSpace
    calibration: Calibration
    batch_norm: bool = False

    def build(self, cache_folder: str | None = None) -> Evaluator:
        """The evaluator; workers of one machine that give the same folder quantize a weight only once."""
        return FakeQuantEvaluator(
            self.task,
            self.space,
            self.calibration,
            cache_folder=cache_folder,
            reestimate_batch_norm=self.batch_norm,
        )

    def shards(self, batch: Sequence[Work], size: int) -> list[list[Work]]:
        """A round cut into shards of candidates that agree on the layers that run first, so that they share work."""

        def key(work: Work) -> tuple[str, ...]:
            return work.split, *execution_key(work.configuration.to_dict(), self.space.names)

        ordered = sorted(batch, key=key)
        return [ordered[start : start + size] for start in range(0, len(ordered), size)]


#: A search as a coroutine: yields the work of a round, is sent its outcomes, and ends when it has nothing more to ask.
Rounds = Generator[list[Work], list[Outcome], None]
Commit = Callable[[Outcome], None]


class Executor(Protocol):
    """Drives a search to its end."""

    def drive(self, rounds: Rounds, recipe: EvaluatorRecipe, commit: Commit) -> None:
        """Do all work that ``rounds`` asks for; call ``commit`` with each outcome as it arrives.

        A round's outcomes are sent back in the order of its work, whatever the order of arrival, so a search with the
        same seed proposes the same candidates on every executor.
        """
        ...


class LocalExecutor:
    """Evaluates shard after shard in this process.

    Args:
        shard_size: candidates that are evaluated together: their common beginning is computed once, and they are
            committed together.
    """

    def __init__(self, shard_size: int = 16) -> None:
        self.shard_size = shard_size

    def drive(self, rounds: Rounds, recipe: EvaluatorRecipe, commit: Commit) -> None:
        """See ``Executor.drive``."""
        evaluator: Evaluator | None = None
        try:
            batch = next(rounds)
            while True:
                evaluator = evaluator or recipe.build()
                arrived: dict[Work, Outcome] = {}
                for shard in recipe.shards(batch, self.shard_size):
                    for outcome in attempt(evaluator, shard):
                        commit(outcome)
                        arrived[outcome.work] = outcome
                batch = rounds.send(in_order(batch, arrived))
        except StopIteration:
            return
        finally:
            rounds.close()


def attempt(evaluator: Evaluator, shard: Iterable[Work], worker: str = "local") -> Iterator[Outcome]:
    """Evaluate a shard; a candidate whose outputs are not finite is an outcome, not a crash."""
    for split, group in groupby(shard, key=lambda work: work.split):
        works = list(group)
        for work, found in zip(
            works, evaluator.evaluate_many([work.configuration for work in works], split), strict=True
        ):
            if isinstance(found, NonFiniteOutput):
                yield Outcome(work, None, failure=str(found), worker=worker)
            else:
                yield Outcome(work, found, worker=worker)


def in_order(batch: Sequence[Work], arrived: dict[Work, Outcome]) -> list[Outcome]:
    """Outcomes in the order of the work."""
    return [arrived[work] for work in batch]
