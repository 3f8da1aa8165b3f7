"""Islands on Ray workers: an actor holds the benches; the states of islands lie in Ray's object store between rounds.

Any actor can run any island, so there may be more islands than workers. A round is a pure function of the state, so one
whose actor died is simply run again by Ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from ...errors import BitfrontError
from ..ray_executor import RayExecutor
from .bench_data import BenchData
from .islands import Report, report_of
from .population import Individual, Island
from .record import Record
from .scoring import Scorer
from .settings import EvolutionSettings

_RETRIES = 2  # of a round whose actor died


class RayIslands:
    """Islands on Ray actors.

    Args:
        benches: the configurations that formulas are chosen on.
        settings: of the evolution.
        known: formulas that were tried before.
        workers: actors, one CPU each.
        address: of a running Ray cluster; default: a local one.
    """

    def __init__(
        self,
        benches: Sequence[BenchData],
        settings: EvolutionSettings,
        known: Sequence[Record],
        workers: int,
        address: str | None = None,
    ) -> None:
        workers = min(workers, settings.islands)
        self._stack = ExitStack()
        self._stack.enter_context(RayExecutor(workers, address=address)._cluster())
        try:
            import ray

            actor = ray.remote(num_cpus=1, max_restarts=_RETRIES, max_task_retries=_RETRIES)(_Worker)
            data, past = ray.put(list(benches)), ray.put(list(known))
            self._workers = [actor.remote(data, settings, past) for _ in range(workers)]
            self._states: list[Any] = [ray.put(Island.first(settings, index)) for index in range(settings.islands)]
        except BaseException:
            self._stack.close()
            raise

    def round(self, arrivals: Sequence[Sequence[Individual]]) -> Iterator[Report]:
        """See ``Islands.round``.

        Raises:
            BitfrontError: a worker failed; the message carries the cause.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        waiting = list(range(len(self._states)))[::-1]
        running: dict[Any, tuple[int, Any]] = {}  # report -> island, actor

        def start(actor: Any) -> None:
            island = waiting.pop()
            state, report = actor.round.options(num_returns=2).remote(island, self._states[island], arrivals[island])
            self._states[island] = state
            running[report] = island, actor

        for actor in self._workers:
            if waiting:
                start(actor)
        while running:
            done, _ = ray.wait(list(running), num_returns=1)
            _, actor = running.pop(done[0])
            if waiting:
                start(actor)
            try:
                yield ray.get(done[0])
            except RayTaskError as failed:
                if isinstance(failed.cause, BitfrontError):
                    raise failed.cause from None
                raise BitfrontError(f"a worker of the evolution failed: {failed.cause!r}") from failed
            except RayError as lost:
                told = str(lost).strip().splitlines()[0]
                raise BitfrontError(f"a worker of the evolution was lost: {told}; run again to go on") from lost

    def close(self) -> None:
        """Stop the actors, and the cluster if it was started here."""
        import ray

        self._states = []
        for actor in self._workers:
            ray.kill(actor)
        self._stack.close()


class _Worker:
    """An actor: benches and known formulas are loaded once."""

    def __init__(self, benches: list[BenchData], settings: EvolutionSettings, known: list[Record]) -> None:
        self._scorer, self._settings = Scorer(benches, settings, known), settings

    def round(self, index: int, island: Island, arrivals: Sequence[Individual]) -> tuple[Island, Report]:
        """A round of one island: its next state, and what came of it."""
        found = report_of(index, island, self._scorer, self._settings, arrivals)
        return island, found
