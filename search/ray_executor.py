"""Evaluation on Ray Tune workers: a trial is a shard of candidates on a warm actor.

Each actor builds its evaluator once (model, data, quantized weights) and is reused for the next shard. It evaluates the
candidates of a shard together, because they share the beginning of the forward pass, and reports them one by one to the
driver, which commits them. The search itself runs inside a Tune
``Searcher``: when the last outcome of a round has arrived, the next ``suggest`` asks it for the next round.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import BitfrontError
from .executor import Commit, EvaluatorRecipe, Rounds, Work


class RayExecutor:
    """Runs the work of a search as Ray Tune trials.

    Args:
        workers: actors; each uses one torch thread. Default: one for every CPU that Ray has.
        cpus: CPUs reserved by an actor.
        gpus: GPUs reserved by an actor.
        shard_size: evaluations per trial; default: a round is cut into four shards per worker.
        address: of a running Ray cluster; default: a local one is started for the run.
    """

    def __init__(
        self,
        workers: int | None = None,
        cpus: float = 1,
        gpus: float = 0,
        shard_size: int | None = None,
        address: str | None = None,
    ) -> None:
        self.workers = workers or os.cpu_count() or 1
        self.cpus = cpus
        self.gpus = gpus
        self.shard_size = shard_size
        self.address = address

    def drive(self, rounds: Rounds, recipe: EvaluatorRecipe, commit: Commit) -> None:
        """See ``Executor.drive``.

        Raises:
            BitfrontError: a worker failed and its shard could not be evaluated; the message carries the cause.
        """
        try:
            first = next(rounds)
        except StopIteration:
            return
        os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends the run; what is committed stays
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
        try:
            with self._cluster(), tempfile.TemporaryDirectory(prefix="bitfront-tune-") as scratch:
                self._fit(rounds, first, recipe, commit, scratch)
        finally:
            rounds.close()

    def _fit(self, rounds: Rounds, first: list[Work], recipe: EvaluatorRecipe, commit: Commit, scratch: str) -> None:
        from ray import tune
        from ray.tune import CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner

        from .ray_shards import Feed, ShardWorker

        feed = Feed(rounds, first, commit, lambda batch: recipe.shards(batch, self._size(batch)))
        folder = str(Path(scratch) / "weights")
        trainable = tune.with_resources(
            tune.with_parameters(ShardWorker, recipe=recipe, cache_folder=folder), {"cpu": self.cpus, "gpu": self.gpus}
        )
        results = Tuner(
            trainable,
            tune_config=TuneConfig(
                search_alg=feed.searcher(),
                num_samples=-1,
                reuse_actors=True,
                max_concurrent_trials=self.workers,
            ),
            run_config=RunConfig(
                name="shards",
                storage_path=scratch,
                verbose=0,
                callbacks=[feed.callback()],
                failure_config=FailureConfig(max_failures=2),
                checkpoint_config=CheckpointConfig(checkpoint_at_end=False),  # the database holds the results
            ),
        ).fit()
        if feed.crash is not None:
            raise feed.crash
        if results.num_errors:
            cause = str(results.errors[0]).strip().splitlines()[-1]
            raise BitfrontError(f"a worker failed three times on one shard: {cause}; run again to continue")

    def _size(self, batch: list[Work]) -> int:
        return self.shard_size or max(1, -(-len(batch) // (4 * self.workers)))

    @contextmanager
    def _cluster(self) -> Iterator[None]:
        """A Ray that is already there, the one at ``address``, or a local one on the loopback interface."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if self.address is None and "ray" not in sys.modules:  # Ray reads these once, when it is imported
            os.environ.setdefault("RAY_AUTH_MODE", "token")
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))
        import ray

        if ray.is_initialized():
            yield
            return
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
        if self.address is None:
            options |= {
                "_node_ip_address": "127.0.0.1",
                "num_cpus": max(self.workers * self.cpus, 1),
                "object_store_memory": 512 * 1024 * 1024,
            }
        ray.init(address=self.address, **options)
        try:
            yield
        finally:
            ray.shutdown()
