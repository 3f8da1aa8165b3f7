"""The Ray side of the work: the actor that evaluates shards, and the feed that hands them out and takes results in."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ray.tune import Callback, Trainable
from ray.tune.search import Searcher

from .. import errors
from ..errors import BitfrontError
from ..evaluators import Evaluator
from ..measurement import Measurement
from ..space import Configuration
from .executor import Commit, EvaluatorRecipe, Outcome, Rounds, Work, attempt, in_order


class ShardWorker(Trainable):  # type: ignore[misc]
    """A warm actor: builds the evaluator once, evaluates its shard, and reports one candidate a step."""

    def setup(self, config: dict[str, Any], recipe: EvaluatorRecipe, cache_folder: str) -> None:
        """Build the evaluator on one torch thread."""
        import torch

        torch.set_num_threads(1)
        self._evaluator: Evaluator = recipe.build(cache_folder)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next shard; everything that is warm stays warm."""
        self._shard = [decode(item) for item in new_config.get("shard", [])]
        self._outcomes: list[Outcome] = []
        self._position = 0
        return True

    def step(self) -> dict[str, Any]:
        """Evaluate the shard in the first step; report one of its candidates in each.

        What is wrong with the input is reported, not raised: another try would fail alike.
        """
        if not self._outcomes:
            try:
                self._outcomes = list(attempt(self._evaluator, self._shard, worker=f"pid {os.getpid()}"))
            except BitfrontError as cause:
                return {"refused": [type(cause).__name__, str(cause)], "done": True}
        outcome = self._outcomes[self._position]
        self._position += 1
        return {
            "work": encode(outcome.work),
            "measurement": asdict(outcome.measurement) if outcome.measurement else None,
            "failure": outcome.failure,
            "worker": outcome.worker,
            "done": self._position == len(self._shard),
        }


class Feed:
    """Cuts rounds into shards, hands them to Tune, and sends a round's outcomes back to the search when it is complete.

    Args:
        rounds: the search.
        first: its first round.
        commit: called with each outcome as it arrives.
        cut: round -> shards.
    """

    def __init__(
        self, rounds: Rounds, first: list[Work], commit: Commit, cut: Callable[[list[Work]], list[list[Work]]]
    ) -> None:
        self._rounds = rounds
        self._commit = commit
        self._cut = cut
        self._batch: list[Work] = []
        self._arrived: dict[Work, Outcome] = {}
        self._shards: deque[list[Work]] = deque()
        self.finished = False
        self.crash: BaseException | None = None
        self._begin(first)

    def next_shard(self) -> list[Work] | None:
        """The next shard; ``None`` while the round is still running or after the end."""
        while not self._shards and not self.finished and all(work in self._arrived for work in self._batch):
            try:
                self._begin(self._rounds.send(in_order(self._batch, self._arrived)))
            except StopIteration:
                self.finished = True
            except BaseException as cause:  # noqa: BLE001  # Tune swallows what a searcher raises; the executor re-raises it
                self.crash, self.finished = cause, True
        return self._shards.popleft() if self._shards else None

    def arrive(self, outcome: Outcome) -> None:
        """Take in one outcome; a shard that was retried after a crash reports its first candidates twice."""
        if outcome.work not in self._arrived:
            self._commit(outcome)
            self._arrived[outcome.work] = outcome

    def refuse(self, cause: BitfrontError) -> None:
        """The input is wrong: end the search; the executor raises the cause."""
        self.crash = self.crash or cause
        self.abandon()

    def abandon(self) -> None:
        """A shard failed for good: end the search."""
        self._shards.clear()
        self.finished = True

    def _begin(self, batch: list[Work]) -> None:
        self._batch, self._arrived = batch, {}
        self._shards.extend(self._cut(batch))

    def searcher(self) -> Searcher:
        """What Tune asks for trials."""
        return _FeedSearcher(self)

    def callback(self) -> Callback:
        """What Tune tells results."""
        return _FeedCallback(self)


class _Unsaved:
    """Tune pickles searcher and callbacks for its own restore, which bitfront does not use: leave the feed out."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _FeedSearcher(_Unsaved, Searcher):  # type: ignore[misc]
    def __init__(self, feed: Feed) -> None:
        super().__init__(metric=None, mode=None)
        self._feed = feed

    def suggest(self, trial_id: str) -> Any:
        shard = self._feed.next_shard()
        if shard is not None:
            return {"shard": [encode(work) for work in shard]}
        return Searcher.FINISHED if self._feed.finished else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if error:
            self._feed.abandon()

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the database is the truth, and a restart asks it what is missing."""

    def restore(self, checkpoint_path: str) -> None:
        """See ``save``."""


class _FeedCallback(_Unsaved, Callback):  # type: ignore[misc]
    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        if "refused" in result:
            kind, text = result["refused"]
            self._feed.refuse(getattr(errors, kind, BitfrontError)(text))
            return
        found = result["measurement"]
        measurement = Measurement(**{**found, "values": tuple(found["values"])}) if found else None
        self._feed.arrive(Outcome(decode(result["work"]), measurement, result["failure"], result["worker"]))


def encode(work: Work) -> dict[str, Any]:
    """Plain data that Tune can write into its own records."""
    return {"formats": work.configuration.to_dict(), "split": work.split}


def decode(item: dict[str, Any]) -> Work:
    """The inverse of ``encode``."""
    return Work(Configuration.from_dict(item["formats"]), item["split"])
