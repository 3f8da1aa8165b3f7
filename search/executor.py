"""Executors: who really evaluates. Rounds of work go in, outcomes come out in the order in which they arrive."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

from ..architecture import Choices
from ..errors import InvalidInput, NonFiniteOutput
from ..evaluators import Calibration, Evaluator, FakeQuantEvaluator, evaluation_context, execution_key
from ..space import SearchSpace
from ..task import Split, Task
from .dispatch import Dispatch
from .shards import Limits
from .work import Commit, Outcome, Rounds, Work

__all__ = ["Commit", "EvaluatorRecipe", "Executor", "LocalExecutor", "Outcome", "Rounds", "Work", "attempt"]


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

    def order(self, batch: Sequence[Work]) -> list[int]:
        """Indices of a round's work, so that neighbours agree on the layers that run first and share that work."""

        def key(index: int) -> tuple[Any, ...]:
            work = batch[index]
            return work.split, work.batches or 0, execution_key(work.configuration.to_dict(), self.space.names)

        return sorted(range(len(batch)), key=key)

    def samples(self, work: Work) -> int:
        """On how many samples a work has to be run."""
        asked = sum(len(batch) for batch in self.task.split(work.split)[: work.batches])
        return max(0, asked - (work.known.samples if work.known else 0))

    def failure_context(self, split: Split, architecture: Choices | None = None) -> str:
        """Key under which it is stored why a configuration (of an architecture, where they are searched) failed."""
        return evaluation_context(self.task, self.calibration, split, reestimate_batch_norm=self.batch_norm)


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
            committed together. Default: as many as take a few seconds.
    """

    def __init__(self, shard_size: int | None = None) -> None:
        self.shard_size = shard_size

    def drive(self, rounds: Rounds, recipe: EvaluatorRecipe, commit: Commit) -> None:
        """See ``Executor.drive``."""
        evaluator: Evaluator | None = None
        dispatch = Dispatch(1, recipe.order, recipe.samples, commit, Limits(size=self.shard_size))
        try:
            batch = next(rounds)
            while True:
                dispatch.begin(batch)
                while shard := dispatch.take():
                    evaluator = evaluator or recipe.build()
                    started = time.perf_counter()
                    outcomes = list(attempt(evaluator, shard.works))
                    dispatch.answer(shard.key, outcomes, time.perf_counter() - started)
                batch = rounds.send(dispatch.outcomes)
        except StopIteration:
            return
        finally:
            rounds.close()


def attempt(evaluator: Evaluator, shard: Iterable[Work], worker: str = "local") -> Iterator[Outcome]:
    """Evaluate a shard; a candidate whose outputs are not finite is an outcome, not a crash."""
    for (split, batches, architecture), group in groupby(
        shard, key=lambda work: (work.split, work.batches, work.architecture)
    ):
        works = list(group)
        options: dict[str, Any] = {} if batches is None else {"batches": batches}
        if architecture is not None:
            options["architecture"] = architecture
        if any(work.race for work in works):
            options["races"] = [work.race for work in works]
        if any(work.known for work in works):
            options["known"] = [work.known for work in works]
        results = evaluator.evaluate_many([work.configuration for work in works], split, **options)
        for work, found in zip(works, results, strict=True):
            if isinstance(found, NonFiniteOutput):
                yield Outcome(work, None, failure=str(found), worker=worker)
            else:
                yield Outcome(work, found, worker=worker)


def executor_called(asked: str | Executor, workers: int | None) -> Executor:
    """An executor by its name, or the one that was given.

    Args:
        asked: ``"local"``, ``"ray"``, or an executor.
        workers: of Ray; ``None``: as many as it chooses.

    Raises:
        InvalidInput: another name.
    """
    if not isinstance(asked, str):
        return asked
    if asked == "local":
        return LocalExecutor()
    if asked == "ray":
        from .ray_executor import RayExecutor

        return RayExecutor(workers)
    raise InvalidInput(f"executor={asked!r}; choose 'ray' or 'local'")
