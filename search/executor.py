"""Executors: who really evaluates. Rounds of work go in, outcomes come out in the order in which they arrive."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..errors import NonFiniteOutput
from ..evaluators import Calibration, Evaluator, FakeQuantEvaluator
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
    """What a worker needs to build its evaluator once."""

    task: Task
    space: SearchSpace
    calibration: Calibration

    def build(self) -> Evaluator:
        """The evaluator."""
        return FakeQuantEvaluator(self.task, self.space, self.calibration)


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
    """Evaluates one candidate after the other in this process."""

    def drive(self, rounds: Rounds, recipe: EvaluatorRecipe, commit: Commit) -> None:
        """See ``Executor.drive``."""
        evaluator: Evaluator | None = None
        try:
            batch = next(rounds)
            while True:
                if batch and evaluator is None:
                    evaluator = recipe.build()
                outcomes = []
                for work in batch:
                    outcome = attempt(evaluator, work) if evaluator else Outcome(work, None, "no evaluator")
                    commit(outcome)
                    outcomes.append(outcome)
                batch = rounds.send(outcomes)
        except StopIteration:
            return
        finally:
            rounds.close()


def attempt(evaluator: Evaluator, work: Work, worker: str = "local") -> Outcome:
    """Evaluate once; a candidate whose outputs are not finite is an outcome, not a crash."""
    try:
        return Outcome(work, evaluator.evaluate(work.configuration, work.split), worker=worker)
    except NonFiniteOutput as cause:
        return Outcome(work, None, failure=str(cause), worker=worker)


def in_order(batch: Sequence[Work], arrived: dict[Work, Outcome]) -> list[Outcome]:
    """Outcomes in the order of the work."""
    return [arrived[work] for work in batch]
