"""The Ray side of the work: the actor that evaluates shards, and the feed that hands them out and takes answers in."""

from __future__ import annotations

import faulthandler
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from ray.tune import Callback, Trainable
from ray.tune.search import Searcher

from .. import errors
from ..errors import BitfrontError
from ..evaluators import Evaluator
from .dispatch import Dispatch
from .executor import EvaluatorRecipe, attempt
from .wire import decode_outcomes, decode_works, encode_outcomes, encode_works
from .work import Rounds, Work

_IDLE = 0.05  # seconds between two looks of a worker that has nothing to do
_STDERR = 2  # the file descriptor, whatever stands in for sys.stderr


class ShardWorker(Trainable):  # type: ignore[misc]
    """A warm actor: builds the evaluator once and answers one shard a step, until it is dismissed."""

    def setup(self, config: dict[str, Any], recipe: EvaluatorRecipe, token: str, host: str, gpu: bool) -> None:
        """Make ready; the evaluator is built with the first shard.

        Args:
            config: nothing; shards are assigned.
            recipe: of the evaluator.
            token: names the folder for quantized weights and float outputs that the workers of a machine share.
            host: name of the machine that drives the search and removes the folder there.
            gpu: whether this worker has a GPU, to which it moves the model.
        """
        import torch

        torch.set_num_threads(1)
        self._recipe, self._gpu = recipe, gpu
        self._folder, self._foreign = weights_folder(token), socket.gethostname() != host
        self._evaluator: Evaluator | None = None
        self._shard: dict[str, Any] | None = None
        self._dismissed = False

    def assign(self, shard: dict[str, Any]) -> None:
        """What the next step is to evaluate; an actor runs its calls in the order in which they were made."""
        self._shard = shard

    def dismiss(self) -> None:
        """The search is over: the next step is the last."""
        self._dismissed = True

    def step(self) -> dict[str, Any]:
        """Evaluate the shard; without one, wait a moment.

        What is wrong with the input is reported, not raised: another try would fail alike. A worker that is stuck in
        it is ended from outside of Python, so that a call that never gives the interpreter back is ended as well.
        """
        shard, self._shard = self._shard, None
        if shard is None:
            time.sleep(0.0 if self._dismissed else _IDLE)
            return {"done": self._dismissed}
        try:
            if self._evaluator is None:
                self._evaluator = self._built()
            started = time.perf_counter()
            faulthandler.dump_traceback_later(shard["limit"], exit=True, file=_STDERR)
            try:
                outcomes = list(attempt(self._evaluator, decode_works(shard["works"]), worker=f"pid {os.getpid()}"))
            finally:
                faulthandler.cancel_dump_traceback_later()
        except BitfrontError as cause:
            return {"key": shard["key"], "refused": [type(cause).__name__, str(cause)], "done": False}
        answer = encode_outcomes(outcomes)
        return {"key": shard["key"], "answer": answer, "busy": time.perf_counter() - started, "done": False}

    def cleanup(self) -> None:
        """Leave no files on other machines; what another worker there has mapped stays readable to it."""
        if self._foreign:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _built(self) -> Evaluator:
        if self._gpu:
            self._recipe.task.model.to("cuda")
        return self._recipe.build(str(self._folder))


def weights_folder(token: str) -> Path:
    """Where the workers of a machine share quantized weights and float outputs for the length of a run."""
    return Path(tempfile.gettempdir()) / f"bitfront-weights-{token}"


class Feed:
    """Hands the shards of a search to Tune, and sends a round's outcomes back to the search when it is complete.

    Args:
        rounds: the search.
        first: its first round.
        dispatch: cuts the rounds, and knows what became of every shard.

    Attributes:
        finished: whether nothing more is to be done.
        crash: what the search, the store or a worker found wrong, to be raised by the executor.
        starting: trials whose actors are not up yet.
    """

    def __init__(self, rounds: Rounds, first: list[Work], dispatch: Dispatch) -> None:
        self._rounds = rounds
        self._dispatch = dispatch
        self.finished = False
        self.crash: BaseException | None = None
        self.starting: set[str] = set()
        dispatch.begin(first)

    @property
    def waiting(self) -> int:
        """Candidates of the round that no worker has yet; a complete round is followed by the next one first."""
        while not self.finished and self._dispatch.complete:
            try:
                self._dispatch.begin(self._rounds.send(self._dispatch.outcomes))
            except StopIteration:
                self.finished = True
            except BaseException as cause:  # noqa: BLE001  # Tune swallows what a searcher raises; the executor re-raises it
                self.end(cause)
        return 0 if self.finished else self._dispatch.waiting

    def next_shard(self) -> dict[str, Any] | None:
        """The next shard; ``None`` while nothing is to be handed out, or after the end."""
        shard = self._dispatch.take() if self.waiting or not self.finished else None
        if shard is None:
            return None
        return {"key": shard.key, "limit": shard.limit, "works": encode_works(shard.works)}

    def started(self, key: int) -> None:
        """An actor that is up begins with a shard."""
        self._dispatch.started(key)

    def answer(self, result: dict[str, Any]) -> None:
        """What a worker reported of its shard."""
        if "refused" in result:
            kind, text = result["refused"]
            self.end(getattr(errors, kind, BitfrontError)(text))
            return
        if not self._dispatch.works(result["key"]):
            return  # of an earlier round: another worker was faster
        found = decode_outcomes(result["answer"], self._dispatch.works(result["key"]))
        self._guarded(self._dispatch.answer, result["key"], found, float(result["busy"]))

    def died(self, key: int, cause: str) -> None:
        """A worker died with a shard in hand."""
        self._guarded(self._dispatch.died, key, cause)

    def unused(self, cause: str) -> None:
        """A worker died before it had a shard, or between two."""
        self._guarded(self._dispatch.unused, cause)

    def end(self, cause: BaseException) -> None:
        """End the search; the executor raises the cause."""
        self.crash, self.finished = self.crash or cause, True

    def _guarded(self, call: Any, *arguments: Any) -> None:
        """Tune wraps what a callback raises in errors of its own; the executor re-raises the cause itself."""
        if self.finished:
            return
        try:
            call(*arguments)
        except BaseException as cause:  # noqa: BLE001
            self.end(cause)

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
    """Asks for a worker (a trial) while more candidates wait than workers are being started."""

    def __init__(self, feed: Feed) -> None:
        super().__init__(metric=None, mode=None)
        self._feed = feed

    def suggest(self, trial_id: str) -> Any:
        waiting = self._feed.waiting
        if self._feed.finished:
            return Searcher.FINISHED
        if waiting <= len(self._feed.starting):
            return None
        self._feed.starting.add(trial_id)
        return {}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._feed.starting.discard(trial_id)  # the callback tells the feed more, for it knows the trial and its error

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the database is the truth, and a restart asks it what is missing."""

    def restore(self, checkpoint_path: str) -> None:
        """See ``save``."""


class _FeedCallback(_Unsaved, Callback):  # type: ignore[misc]
    """Gives a worker its next shard whenever it comes back, just before Tune calls its next step."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._in_hand: dict[str, int] = {}  # trial -> shard

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._feed.starting.discard(trial.trial_id)
        self._assign(trial)

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        if "key" in result:
            self._in_hand.pop(trial.trial_id, None)
            self._feed.answer(result)
        if not result.get("done"):
            self._assign(trial)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._feed.starting.discard(trial.trial_id)
        cause = _last_line(trial.error_file)
        key = self._in_hand.pop(trial.trial_id, None)
        if key is None:
            self._feed.unused(cause)
        else:
            self._feed.died(key, cause)

    def _assign(self, trial: Any) -> None:
        actor = trial.temporary_state.ray_actor
        shard = self._feed.next_shard()
        if shard is not None:
            self._in_hand[trial.trial_id] = shard["key"]
            self._feed.started(shard["key"])
            actor.assign.remote(shard)
        elif self._feed.finished:
            actor.dismiss.remote()


def _last_line(path: str | None) -> str:
    """What an error came down to, from the file in which Tune wrote it."""
    text = Path(path).read_text(encoding="utf-8", errors="replace") if path and Path(path).exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "its worker died"
