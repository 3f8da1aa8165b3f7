"""The evaluator: what a configuration really costs in quality."""

from __future__ import annotations

import difflib
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from ..errors import InvalidInput, NonFiniteOutput
from ..measurement import Measurement
from ..space import SearchSpace
from ..task import Split, Task
from .batch_norm import Statistics, batch_norm_statistics, taken_on
from .calibrate import calibrate
from .calibration import VERSION, Calibration
from .float_reference import FloatReference
from .float_run import on_device
from .metrics import output_tensor, per_sample
from .non_finite import first_non_finite
from .quantized_model import QuantizedModel
from .replay import Mode, Replayer, freed_memory_kept
from .shard import Done, Result, Run, Shard

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from .racing import Race


class Evaluator(Protocol):
    """What the search needs from an evaluator."""

    def evaluate(self, configuration: Mapping[str, str], split: Split = "validation") -> Measurement:
        """Measure the quality of one configuration on one split."""
        ...

    def evaluate_many(
        self, configurations: Sequence[Mapping[str, str]], split: Split = "validation"
    ) -> Sequence[Measurement | NonFiniteOutput]:
        """Measure a shard of configurations; a result for each, in their order."""
        ...


class FakeQuantEvaluator:
    """Runs the fake-quantized model over a split and compares with the float model.

    The float outputs of each split and the quantized weights are computed once and kept. ``evaluate_many`` also
    computes once what candidates have in common: it captures the forward pass, sorts the candidates so that neighbours
    agree on its beginning, and starts each where it first differs. The measurements are the same to the bit.

    Args:
        task: model, data and metric.
        space: the sites.
        calibration: scales and ranges; computed here if not given.
        cache_bytes: what quantized weights (half of it) and kept activations (the other half) may take.
        cache_folder: shared by the processes of one machine for quantized weights and float outputs.
        reestimate_batch_norm: whether the statistics of batch normalization are estimated again, on the calibration
            data, for every configuration; only the difference to those of the float model there is taken on. Nothing
            is replayed then.
        replay: whether ``evaluate_many`` captures the model: ``"auto"`` does when enough is to be evaluated.
    """

    def __init__(
        self,
        task: Task,
        space: SearchSpace,
        calibration: Calibration | None = None,
        *,
        cache_bytes: int = 4_000_000_000,
        cache_folder: str | Path | None = None,
        reestimate_batch_norm: bool = False,
        replay: Mode = "auto",
    ) -> None:
        self.task = task
        self.reestimate_batch_norm = reestimate_batch_norm
        self._before: Statistics | None = None  # the float model's statistics on the calibration data
        calibration = calibration or calibrate(task, space)
        self.quantized = QuantizedModel(task.model, space, calibration, cache_bytes // 2, cache_folder)
        self.reference = FloatReference(task, cache_folder)
        mode: Mode = "never" if reestimate_batch_norm else replay
        self.replayer = Replayer(self.quantized, self.reference, cache_bytes // 2, mode)

    @property
    def not_replayed(self) -> dict[str, str]:
        """Shape of inputs -> why ``evaluate_many`` runs the module itself there."""
        return dict(self.replayer.reasons)

    def evaluate(
        self, configuration: Mapping[str, str], split: Split = "validation", race: Race | None = None
    ) -> Measurement:
        """Measure one configuration.

        Args:
            configuration: ``{site name: format name}``; sites left out stay in float, so ``{}`` is the float model.
            split: which data.
            race: asked after every batch; when it is lost the measurement covers the samples seen so far.

        Returns:
            The metric over the split, with its bootstrap interval and the value of every sample.

        Raises:
            NonFiniteOutput: the float or the quantized model gives NaN or infinity; the message names the first site.
        """
        batches = len(self.references(split))
        run = Run(configuration, race)
        before = self._float_statistics() if self.reestimate_batch_norm else {}
        started, failure = time.perf_counter(), None
        with ExitStack() as stack:
            stack.enter_context(freed_memory_kept())
            model = stack.enter_context(self.quantized.applied(configuration))
            stack.enter_context(torch.no_grad())
            if self.reestimate_batch_norm:
                found = batch_norm_statistics(model, self.task.calibration, before)
                stack.enter_context(taken_on(model, found))
            for position, batch in enumerate(self.task.split(split)):
                output = output_tensor(on_device(batch, model)(model))
                try:
                    run.values.append(self.judged(output, split, position))
                except NonFiniteOutput as cause:
                    failure = position, cause
                    break
                if run.ended(batches):
                    break
        if failure is not None:
            raise self.located(failure[1], configuration, split, failure[0])
        run.seconds = time.perf_counter() - started
        return run.measured(self.task.metric, split)

    def evaluate_many(
        self,
        configurations: Sequence[Mapping[str, str]],
        split: Split = "validation",
        races: Sequence[Race | None] | None = None,
        done: Done | None = None,
    ) -> list[Result]:
        """Measure a shard of configurations, batch by batch.

        Args:
            configurations: as for ``evaluate``, in any order.
            split: which data.
            races: one for each configuration, or ``None``.
            done: called with the index and the result of each configuration when it is known.

        Returns:
            A result for each configuration, in the order given: the measurement that ``evaluate`` gives (its
            ``seconds`` without what was computed for others), or the error if its output is not finite.

        Raises:
            NonFiniteOutput: the float model gives NaN or infinity.
            InvalidInput: a configuration does not fit the space.
        """
        with freed_memory_kept():
            self.references(split)
            shard = Shard(self, configurations, split, races or [None] * len(configurations), done)
            if self.replayer.worthwhile(len(configurations), split):
                shard.run_by_batch()
            shard.run_alone()
        return [shard.results[index] for index in range(len(configurations))]

    def order(self, configurations: Sequence[Mapping[str, str]]) -> list[int]:
        """Indices of configurations, sorted so that neighbours agree on the first executed sites for long.

        Cut a long list into shards in this order.
        """
        names = self.quantized.space.names
        keys = [tuple(each.get(name, "") for name in names) for each in configurations]
        return sorted(range(len(keys)), key=keys.__getitem__)

    def _float_statistics(self) -> Statistics:
        if self._before is None:
            self._before = batch_norm_statistics(self.task.model, self.task.calibration)
        return self._before

    def references(self, split: Split) -> list[Tensor]:
        """The float model's outputs of every batch of a split."""
        return self.reference.outputs(split)

    def judged(self, output: Tensor, split: Split, position: int) -> NDArray[np.float64]:
        """The metric of every sample of a batch: float64 [samples].

        Args:
            output: what a candidate gave.
            split: which data.
            position: of the batch.

        Raises:
            NonFiniteOutput: the output or the metric is not finite.
        """
        batch = on_device(self.task.split(split)[position], self.task.model)
        values = per_sample(self.task, output, self.references(split)[position], batch.targets)
        return values.cpu().numpy().astype(np.float64)

    def located(
        self, cause: NonFiniteOutput, configuration: Mapping[str, str], split: Split, position: int
    ) -> NonFiniteOutput:
        """The error for an output that is not finite, with the first offending site."""
        where = first_non_finite(self.quantized, configuration, self.task.split(split)[position])
        return NonFiniteOutput(f"{cause}, first in {where}") if where else cause


def evaluate(task: Task, configuration: Mapping[str, str], split: Split = "holdout") -> Measurement:
    """Measure the quality of one configuration of a task.

    Args:
        task: model, data and metric.
        configuration: ``{site name: format name}``; sites left out stay in float.
        split: by default the data that no search sees.

    Returns:
        The measurement, with its interval.

    Raises:
        InvalidInput: the configuration names sites that the model does not have, or formats that they cannot take.
    """
    formats = sorted({*configuration.values(), "fp32"})
    space = SearchSpace.from_model(task.model, task.calibration[0], formats=formats, ties="none")
    unknown = sorted(set(configuration) - set(space.names))
    if unknown:
        near = difflib.get_close_matches(unknown[0], space.names, n=3, cutoff=0.3) or space.names[:3]
        raise InvalidInput(f"unknown sites {', '.join(unknown[:5])}; nearest to the first: {', '.join(near)}")
    space.choice({name: configuration.get(name, "fp32") for name in space.names})
    chosen = [replace(site, formats=(configuration[site.name],)) for site in space.sites if site.name in configuration]
    return FakeQuantEvaluator(task, replace(space, sites=chosen)).evaluate(configuration, split)


def evaluation_context(task: Task, calibration: Calibration, split: Split) -> str:
    """Key under which evaluations are stored: weights, metric, data of the split, calibration, quantizer version."""
    return f"v{VERSION}-{task.digest(split)}-{calibration.digest}"
