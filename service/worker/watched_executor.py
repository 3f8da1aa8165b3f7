"""Evaluation in the job's own process, which tells its worker what it has in hand.

A candidate that ends the process (a segmentation fault, memory that runs out, a native library that gives up) ends the
attempt. Its worker knows from the pipe what was in hand, so the next attempt evaluates every candidate alone, and one
that has ended two processes is not tried again (``quarantine``). Ray's actors are watched by ``search.dispatch``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...architecture import Choices
from ...evaluators import Evaluator
from ...measurement import Measurement
from ...search import LocalExecutor
from ...search.executor import Commit, EvaluatorRecipe, Rounds, Work
from ...task import Split
from .pipe import Teller
from .stop_signal import StopSignal


class WatchedExecutor(LocalExecutor):
    """A local executor that tells what it evaluates and stops between two shards.

    Args:
        teller: the worker's pipe.
        stop: when to stop.
        alone: whether each candidate is evaluated alone.
    """

    def __init__(self, teller: Teller, stop: StopSignal, *, alone: bool = False) -> None:
        super().__init__(1 if alone else None)
        self._teller, self._stop = teller, stop

    def drive(self, rounds: Rounds, recipe: EvaluatorRecipe, commit: Commit) -> None:
        """See ``search.Executor.drive``."""
        watched = _WatchedRecipe(
            recipe.task,
            recipe.space,
            recipe.calibration,
            recipe.batch_norm,
            watched=recipe,
            teller=self._teller,
            stop=self._stop,
        )
        super().drive(self._stoppable(rounds), watched, commit)

    def _stoppable(self, rounds: Rounds) -> Rounds:
        """The rounds; while one is evaluated, a signal waits for what is in hand to be committed."""
        try:
            work = next(rounds)
            while True:
                with self._stop.after_what_is_in_hand():
                    outcomes = yield work
                work = rounds.send(outcomes)
        except StopIteration:
            return
        finally:
            rounds.close()


@dataclass(frozen=True)
class _WatchedRecipe(EvaluatorRecipe):
    watched: EvaluatorRecipe = field(kw_only=True)
    teller: Teller = field(kw_only=True)
    stop: StopSignal = field(kw_only=True)

    def build(self, cache_folder: str | None = None) -> Evaluator:
        return _WatchedEvaluator(self.watched.build(cache_folder), self)

    def order(self, batch: Sequence[Work]) -> list[int]:
        return self.watched.order(batch)

    def samples(self, work: Work) -> int:
        return self.watched.samples(work)


class _WatchedEvaluator:
    def __init__(self, evaluator: Evaluator, recipe: _WatchedRecipe) -> None:
        self._evaluator, self._recipe = evaluator, recipe
        self._contexts: dict[tuple[Split, Choices | None], str] = {}

    def evaluate(self, configuration: Mapping[str, str], split: Split = "validation") -> Measurement:
        return self._evaluator.evaluate(configuration, split)

    def evaluate_many(
        self, configurations: Sequence[Any], split: Split = "validation", *races: Any, **options: Any
    ) -> Any:
        self._recipe.stop.here()
        context = self._context(split, options.get("architecture"))
        self._recipe.teller.in_hand(context, split, [each.to_dict() for each in configurations])
        done = False
        try:
            found = self._evaluator.evaluate_many(configurations, split, *races, **options)
            done = True
        finally:
            self._recipe.teller.put_down(done=done)
        return found

    def _context(self, split: Split, architecture: Choices | None) -> str:
        if (split, architecture) not in self._contexts:
            self._contexts[split, architecture] = self._recipe.watched.failure_context(split, architecture)
        return self._contexts[split, architecture]
