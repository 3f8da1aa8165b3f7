"""A shard: configurations that are evaluated together, so that what they have in common is computed once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import NonFiniteOutput
from ..measurement import Measurement
from ..task import Split
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
    """One configuration on its way through a split.

    Attributes:
        configuration: what is measured.
        race: asked after every batch.
        values: the metric of every sample, by batch.
        seconds: what it took so far.
    """

    configuration: Mapping[str, str]
    race: Race | None
    values: list[NDArray[np.float64]] = field(default_factory=list)
    seconds: float = 0.0

    def ended(self, batches: int) -> bool:
        """Whether it has seen all batches, or has lost its race."""
        if len(self.values) == batches:
            return True
        return self.race is not None and self.race.lost(np.concatenate(self.values))

    def measured(self, metric: str, split: Split) -> Measurement:
        """The measurement over the samples seen."""
        return Measurement.of(metric, split, np.concatenate(self.values), self.seconds)


class Shard:
    """Evaluates configurations batch by batch, and alone what cannot be replayed.

    Args:
        evaluator: whose task, model and captured programs are used.
        configurations: in any order.
        split: which data.
        races: one for each configuration, or ``None``.
        done: called with the index and the result of each configuration when it is known.
    """

    def __init__(
        self,
        evaluator: FakeQuantEvaluator,
        configurations: Sequence[Mapping[str, str]],
        split: Split,
        races: Sequence[Race | None],
        done: Done | None,
    ) -> None:
        self.evaluator = evaluator
        self.split = split
        self.results: dict[int, Evaluation] = {}
        self._runs = [Run(each, race) for each, race in zip(configurations, races, strict=True)]
        self._changes = [evaluator.quantized.changes(each) for each in configurations]
        self._done = done
        self._batches = len(evaluator.task.split(split))
        self._signatures: dict[tuple[PrefixRunner, int], Signature] = {}

    def run_alone(self) -> None:
        """Evaluate what has no result yet, one configuration after the other."""
        for index, run in enumerate(self._runs):
            if index in self.results:
                continue
            try:
                self._finish(index, self.evaluator.evaluate(run.configuration, self.split, run.race))
            except NonFiniteOutput as cause:
                self._finish(index, cause)

    def run_by_batch(self) -> None:
        """Evaluate on one batch after the other, where the model can be replayed."""
        replayer = self.evaluator.replayer
        for position in range(self._batches):
            replayer.runner(self.split, position)  # all are checked first: a later one may discredit a program
        runners = [replayer.runner(self.split, position) for position in range(self._batches)]
        if not any(runners):
            return
        unreachable = frozenset().union(*(runner.program.unreachable for runner in runners if runner))
        together = [index for index, each in enumerate(self._changes) if not unreachable & each.rounding.keys()]
        for position, runner in enumerate(runners):
            together = [index for index in together if index not in self.results]
            if runner is None:
                self._module_runs(position, together)
            else:
                self._replay(runner, position, together)

    def _replay(self, runner: PrefixRunner, position: int, indices: Sequence[int]) -> None:
        for index in indices:
            if (runner, index) not in self._signatures:
                self._signatures[runner, index] = runner.signature(self._changes[index])
        batch = on_device(self.evaluator.task.split(self.split)[position], self.evaluator.task.model)
        changes = [self._changes[index] for index in indices]
        signatures = [self._signatures[runner, index] for index in indices]
        with torch.no_grad():
            for output in runner.outputs(list(batch.tensors.values()), changes, signatures):
                self._take(indices[output.index], output.value, position, output.seconds)

    def _module_runs(self, position: int, indices: Sequence[int]) -> None:
        evaluator = self.evaluator
        batch = on_device(evaluator.task.split(self.split)[position], evaluator.task.model)
        for index in indices:
            started = time.perf_counter()
            with evaluator.quantized.applied(self._runs[index].configuration) as model, torch.no_grad():
                value = batch(model)
            self._take(index, value, position, time.perf_counter() - started)

    def _take(self, index: int, value: Any, position: int, seconds: float) -> None:
        """Judge what a configuration gave on a batch."""
        run, started = self._runs[index], time.perf_counter()
        try:
            run.values.append(self.evaluator.judged(output_tensor(value), self.split, position))
        except NonFiniteOutput as cause:
            self._finish(index, self.evaluator.located(cause, run.configuration, self.split, position))
            return
        run.seconds += seconds + time.perf_counter() - started
        if run.ended(self._batches):
            self._finish(index, run.measured(self.evaluator.task.metric, self.split))

    def _finish(self, index: int, result: Evaluation) -> None:
        self.results[index] = result
        if self._done is not None:
            self._done(index, result)
