"""Evaluation on Ray Tune workers: a trial is a warm actor, a step of it a shard of candidates.

Each actor builds its evaluator once (model, data, quantized weights) and keeps it for all rounds of a search. It
evaluates the candidates of a shard together, because they share the beginning of the forward pass. Were a shard a trial
of its own, Tune would keep one idle actor between rounds and start the others again, and would give a short queue to
whichever actor comes back first before a second one is up (seen: two workers as fast as one). How a round is cut, and
what happens to the work of workers that are slow, get stuck or die, is decided by ``dispatch``; Tune replaces the
worker. No more shards are handed out than there are workers.

Model, data, scales and codes travel through Ray's object store, so the machines of a cluster need no common disk; the
workers of one machine share quantized weights and float outputs through files in its temporary folder.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from dataclasses import asdict

from ..errors import InvalidInput
from .dispatch import Dispatch
from .executor import EvaluatorRecipe
from .ray_cluster import ray_cluster
from .shards import Limits
from .work import Commit, Rounds, Work

_QUIET = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the run; what is committed stays
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the database holds the results
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # a dead worker is dealt with, and reported when it cannot be
    "TUNE_FORCE_TRIAL_CLEANUP_S": "10",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class RayExecutor:
    """Runs the work of a search on Ray Tune's trials.

    Args:
        workers: actors; each uses one torch thread. Default: one for every GPU where workers have one, else one for
            every CPU of this machine (of the cluster, with an address).
        cpus: CPUs reserved by an actor.
        gpus: GPUs reserved by an actor, which then moves the model there. Default: one if the task's model is on a
            GPU, else none.
        shard_size: candidates per shard; default: as many as take 1 to 4 seconds, by what earlier ones took.
        address: of a running Ray cluster, such as ``auto`` or ``ray://host:10001``; default: a local one is started
            for the run.
        storage: a URL, or a folder that all machines see, for Tune's own records; default: a temporary folder.
        limits: sizes and time limits of shards; ``shard_size`` stands before its size.

    Attributes:
        workers: how many actors work at a time.
        report: of the latest ``drive``: wall seconds, and the totals of ``dispatch``.

    Raises:
        InvalidInput: a number that is out of range.
    """

    def __init__(
        self,
        workers: int | None = None,
        cpus: float = 1,
        gpus: float | None = None,
        shard_size: int | None = None,
        address: str | None = None,
        *,
        storage: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        if (workers is not None and workers < 1) or cpus < 0 or (gpus or 0) < 0:
            raise InvalidInput(f"workers={workers}, cpus={cpus}, gpus={gpus}; give at least one worker, and no less")
        self._asked = workers
        self.workers = workers or os.cpu_count() or 1
        self.cpus = cpus
        self.gpus = gpus
        self.shard_size = shard_size
        self.address = address
        self.storage = storage
        self.limits = limits or Limits()
        if shard_size is not None:
            self.limits = Limits(**{**asdict(self.limits), "size": shard_size})
        self.report: dict[str, float] = {}

    def drive(self, rounds: Rounds, recipe: EvaluatorRecipe, commit: Commit) -> None:
        """See ``Executor.drive``.

        Raises:
            BitfrontError: worker after worker died and nothing was finished in between; the message carries the cause.
        """
        try:
            first = next(rounds)
        except StopIteration:
            return
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        token, started = secrets.token_hex(8), time.perf_counter()
        try:
            gpus = self._gpus(recipe)
            if self._asked is None:
                self.workers = self._room(gpus)
            with (
                ray_cluster(self.workers * self.cpus, self.address) as own,
                tempfile.TemporaryDirectory(prefix="bitfront-tune-") as scratch,
            ):
                if self._asked is None and not own:
                    self.workers = self._room(gpus)
                self._fit(rounds, first, recipe, commit, scratch, token, gpus, started)
        finally:
            rounds.close()

    def _fit(
        self,
        rounds: Rounds,
        first: list[Work],
        recipe: EvaluatorRecipe,
        commit: Commit,
        scratch: str,
        token: str,
        gpus: float,
        started: float,
    ) -> None:
        from ray import tune
        from ray.tune import CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner

        from .ray_shards import Feed, ShardWorker, weights_folder

        dispatch = Dispatch(self.workers, recipe.order, recipe.samples, commit, self.limits)
        feed = Feed(rounds, first, dispatch)
        trainable = tune.with_resources(
            tune.with_parameters(ShardWorker, recipe=recipe, token=token, host=socket.gethostname(), gpu=gpus > 0),
            {"cpu": self.cpus, "gpu": gpus},
        )
        try:
            Tuner(
                trainable,
                tune_config=TuneConfig(
                    search_alg=feed.searcher(),
                    num_samples=-1,
                    reuse_actors=False,  # a trial is a worker's whole life
                    max_concurrent_trials=self.workers,
                ),
                run_config=RunConfig(
                    name=f"shards-{token}",
                    storage_path=self.storage or scratch,
                    verbose=0,
                    callbacks=[feed.callback()],
                    failure_config=FailureConfig(max_failures=0),  # the dispatch deals with what failed
                    checkpoint_config=CheckpointConfig(checkpoint_at_end=False),  # the database holds the results
                ),
            ).fit()
        finally:
            shutil.rmtree(weights_folder(token), ignore_errors=True)
            self.report = {"wall_seconds": time.perf_counter() - started, **asdict(dispatch.totals)}
        if feed.crash is not None:
            raise feed.crash

    def _gpus(self, recipe: EvaluatorRecipe) -> float:
        if self.gpus is not None:
            return self.gpus
        parameter = next(recipe.task.model.parameters(), None)
        return 1.0 if parameter is not None and parameter.is_cuda else 0.0

    def _room(self, gpus: float) -> int:
        """How many workers this machine, or the cluster at the address, has room for."""
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            room = ray.cluster_resources()
        else:
            import torch

            room = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
        fitting = [room.get(name, 0.0) // each for name, each in (("GPU", gpus), ("CPU", self.cpus)) if each > 0]
        return max(1, int(min(fitting, default=1)))
