"""A shard: configurations that are evaluated together, so that what they have in common is computed once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InvalidInput, NonFiniteOutput
from ..measurement import Measurement, part_of, whole
from ..task import Split, Task
from .float_run import on_device
from .metrics import output_tensor
from .replay import PrefixRunner, Signature

if TYPE_CHECKING:
    from .evaluator import FakeQuantEvaluator
    from .racing import Race

#: A measurement, or why there is none.
Evaluation = Measurement | NonFiniteOutput
#: Called with the index and the evaluation of a configuration.
Done = Callable[[int, Evaluation], None]


def execution_key(configuration: Mapping[str, str], names: Sequence[str]) -> tuple[str, ...]:
    """What configurations are sorted by, so that neighbours agree on the first executed sites for long.

    Args:
        configuration: ``{site name: format name}``.
        names: of all sites, in the order in which they run (``space.names``).
    """
    return tuple(configuration.get(name, "") for name in names)


@dataclass
class Run:
    """One configuration on its way through the batches of a split.

    Attributes:
        configuration: what is measured.
        split: which data.
        race: asked after every batch.
        position: the next batch.
        last: the first batch that is not wanted.
        samples: how many the whole split has.
        values: the metric of every sample so far, in pieces.
        seconds: what it took so far, what was known before included.
    """

    configuration: Mapping[str, str]
    split: Split
    race: Race | None
    position: int
    last: int
    samples: int
    values: list[NDArray[np.float64]] = field(default_factory=list)
    seconds: float = 0.0

    @staticmethod
    def of(
        task: Task,
        configuration: Mapping[str, str],
        split: Split,
        race: Race | None = None,
        known: Measurement | None = None,
        batches: int | None = None,
    ) -> Run:
        """A run that continues where an earlier measurement ended.

        Args:
            task: whose batches.
            configuration: what is measured.
            split: which data.
            race: asked after every batch.
            known: an earlier measurement of the first samples of the same split.
            batches: end after so many; ``None``: all.

        Raises:
            InvalidInput: the split has fewer batches, or the known measurement does not end with one of them.
        """
        ends = np.cumsum([len(batch) for batch in task.split(split)])
        last = len(ends) if batches is None else batches
        if not 1 <= last <= len(ends):
            raise InvalidInput(f"batches={batches}; the {split} data has {len(ends)}, so give 1 to {len(ends)}")
        run = Run(configuration, split, race, 0, last, int(ends[-1]))
        if known is not None:
            known = known.beginning(int(ends[last - 1]))
            if (whole(known.split), known.metric) != (split, task.metric) or known.samples not in ends:
                raise InvalidInput(
                    f"{known.metric} on {known.split} ({known.samples} samples) cannot be continued as {task.metric} "
                    f"on {split}, whose batches end after {', '.join(map(str, ends))} samples"
                )
            run.values, run.seconds = [np.array(known.values)], known.seconds
            run.position = int(np.searchsorted(ends, known.samples)) + 1
        return run

    @property
    def ended(self) -> bool:
        """Whether it has seen all batches that are wanted, or has lost its race."""
        if self.position >= self.last:
            return True
        return self.race is not None and bool(self.values) and self.race.lost(np.concatenate(self.values))

    def take(self, values: NDArray[np.float64]) -> None:
        """The metric of every sample of the next batch."""
        self.values.append(values)
        self.position += 1

    def measured(self, metric: str) -> Measurement:
        """The measurement over the samples seen; it is named a part where these are not all."""
        values = np.concatenate(self.values)
        name = self.split if len(values) == self.samples else part_of(self.split, len(values))
        return Measurement.of(metric, name, values, self.seconds)


class Shard:
    """Evaluates configurations batch by batch, and alone what cannot be replayed.

    Args:
        evaluator: whose task, model and captured programs are used.
        runs: the configurations, in any order, all on one split; those that have ended need nothing more.
        done: called with the index and the result of each configuration when it is known.
    """

    def __init__(
        self,
        evaluator: FakeQuantEvaluator,
        runs: Sequence[Run],
        done: Done | None,
    ) -> None:
        self.evaluator = evaluator
        self.results: dict[int, Evaluation] = {}
        self._runs = runs
        self._changes = [evaluator.quantized.changes(run.configuration) for run in runs]
        self._done = done
        self._signatures: dict[tuple[PrefixRunner, int], Signature] = {}
        for index, run in enumerate(runs):
            if run.ended:
                self._finish(index, run.measured(evaluator.task.metric))

    def run_alone(self) -> None:
        """Evaluate what has no result yet, one configuration after the other."""
        for index, run in enumerate(self._runs):
            if index in self.results:
                continue
            try:
                self._finish(index, self.evaluator.finish(run))
            except NonFiniteOutput as cause:
                self._finish(index, cause)

    def run_by_batch(self) -> None:
        """Evaluate on one batch after the other, where the model can be replayed."""
        replayer, open_runs = self.evaluator.replayer, [run for each, run in enumerate(self._runs) if self._open(each)]
        if not open_runs:
            return
        split = open_runs[0].split
        positions = range(min(run.position for run in open_runs), max(run.last for run in open_runs))
        for position in positions:
            replayer.runner(split, position)  # all are checked first: a later one may discredit a program
        runners = {position: replayer.runner(split, position) for position in positions}
        if not any(runners.values()):
            return
        unreachable = frozenset().union(*(runner.program.unreachable for runner in runners.values() if runner))
        together = [index for index, each in enumerate(self._changes) if not unreachable & each.rounding.keys()]
        for position, runner in runners.items():
            here = [index for index in together if self._open(index) and self._runs[index].position == position]
            if runner is None:
                self._module_runs(split, position, here)
            else:
                self._replay(split, runner, position, here)

    def _open(self, index: int) -> bool:
        return index not in self.results

    def _replay(self, split: Split, runner: PrefixRunner, position: int, indices: Sequence[int]) -> None:
        for index in indices:
            if (runner, index) not in self._signatures:
                self._signatures[runner, index] = runner.signature(self._changes[index])
        batch = on_device(self.evaluator.task.split(split)[position], self.evaluator.task.model)
        changes = [self._changes[index] for index in indices]
        signatures = [self._signatures[runner, index] for index in indices]
        with torch.no_grad():
            for output in runner.outputs(list(batch.tensors.values()), changes, signatures):
                self._take(indices[output.index], output.value, position, output.seconds)

    def _module_runs(self, split: Split, position: int, indices: Sequence[int]) -> None:
        evaluator = self.evaluator
        batch = on_device(evaluator.task.split(split)[position], evaluator.task.model)
        for index in indices:
            started = time.perf_counter()
            with evaluator.quantized.applied(self._runs[index].configuration) as model, torch.no_grad():
                value = batch(model)
            self._take(index, value, position, time.perf_counter() - started)

    def _take(self, index: int, value: Any, position: int, seconds: float) -> None:
        """Judge what a configuration gave on a batch."""
        run, started = self._runs[index], time.perf_counter()
        try:
            run.take(self.evaluator.judged(output_tensor(value), run.split, position))
        except NonFiniteOutput as cause:
            self._finish(index, self.evaluator.located(cause, run.configuration, run.split, position))
            return
        run.seconds += seconds + time.perf_counter() - started
        if run.ended:
            self._finish(index, run.measured(self.evaluator.task.metric))

    def _finish(self, index: int, result: Evaluation) -> None:
        self.results[index] = result
        if self._done is not None:
            self._done(index, result)
