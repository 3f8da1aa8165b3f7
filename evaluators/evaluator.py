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
from .batch_norm import Statistics, batch_norm_statistics, batch_norms, taken_on
from .calibrate import calibrate
from .calibration import VERSION, Calibration
from .float_reference import FloatReference
from .float_run import on_device
from .metrics import output_tensor, per_sample
from .non_finite import first_non_finite
from .quantized_model import QuantizedModel
from .replay import Mode, Replayer, check_mode, freed_memory_kept
from .shard import Done, Evaluation, Run, Shard, execution_key

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
        self,
        configurations: Sequence[Mapping[str, str]],
        split: Split = "validation",
        races: Sequence[Race | None] | None = None,
        *,
        known: Sequence[Measurement | None] | None = None,
        batches: int | None = None,
    ) -> Sequence[Evaluation]:
        """Measure a shard of configurations; a result for each, in their order."""
        ...


class FakeQuantEvaluator:
    """Runs the fake-quantized model over a split and compares with the float model.

    The float outputs of each split and the quantized weights are computed once and kept. ``evaluate_many`` also
    computes once what candidates have in common: it captures the forward pass, sorts the candidates so that neighbours
    agree on its beginning, and starts each where it first differs. The measurements are the same to the bit.

    The model runs in evaluation mode, whatever mode it is in, and has its own mode again afterwards. Its weights must
    stay what they were when the evaluator was made.

    Args:
        task: model, data and metric.
        space: the sites.
        calibration: scales and ranges; computed here if not given.
        cache_bytes: what quantized weights and kept activations may take: 45 % each, and a tenth for what is needed
            while a weight is quantized. The float outputs of the splits that were evaluated come on top.
        cache_folder: shared by the processes of one machine for quantized weights and float outputs.
        reestimate_batch_norm: whether the statistics of batch normalization are estimated again, on the calibration
            data, for every configuration; only the difference to those of the float model there is taken on. Nothing
            is replayed then, unless the model has no batch normalization.
        replay: whether ``evaluate_many`` captures the model: ``"auto"`` does when enough is to be evaluated.

    Attributes:
        reestimate_batch_norm: whether it was asked for and there is something to estimate.

    Raises:
        InvalidInput: an unknown ``replay``, or negative ``cache_bytes``.
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
        check_mode(replay)
        if cache_bytes < 0:
            raise InvalidInput(f"cache_bytes={cache_bytes}; give 0 or more")
        self.task = task
        self.reestimate_batch_norm = reestimate_batch_norm and bool(batch_norms(task.model))
        self._before: Statistics | None = None  # the float model's statistics on the calibration data
        calibration = calibration or calibrate(task, space)
        share = int(0.45 * cache_bytes)
        self.quantized = QuantizedModel(task.model, space, calibration, share, cache_folder)
        self.reference = FloatReference(task, cache_folder)
        mode: Mode = "never" if self.reestimate_batch_norm else replay
        self.replayer = Replayer(self.quantized, self.reference, share, mode)

    @property
    def not_replayed(self) -> dict[str, str]:
        """Shape of inputs -> why ``evaluate_many`` runs the module itself there."""
        return dict(self.replayer.reasons)

    def evaluate(
        self,
        configuration: Mapping[str, str],
        split: Split = "validation",
        race: Race | None = None,
        *,
        known: Measurement | None = None,
        batches: int | None = None,
    ) -> Measurement:
        """Measure one configuration.

        Args:
            configuration: ``{site name: format name}``; sites left out stay in float, so ``{}`` is the float model.
            split: which data.
            race: asked after every batch; when it is lost the measurement covers the samples seen so far.
            known: an earlier measurement of the configuration on the first batches of the split: only the others are
                run, and the result covers both, the same to the bit as if all had been run at once.
            batches: measure only on the first so many; ``None``: all.

        Returns:
            The metric over the split, with its bootstrap interval and the value of every sample. Where it covers only
            the first samples (a lost race, ``batches``) its ``split`` says so: ``validation[:16]``.

        Raises:
            NonFiniteOutput: the float or the quantized model gives NaN or infinity; the message names the first site.
            InvalidInput: the configuration does not fit the space, there is no such split, it has fewer batches, the
                known measurement does not end with a batch, or the weights were changed since the evaluator was made.
        """
        self.references(split)
        run = Run.of(self.task, configuration, split, race, known, batches)
        return run.measured(self.task.metric) if run.ended else self.finish(run)

    def finish(self, run: Run) -> Measurement:
        """Take a run to its end, on its own.

        Args:
            run: not ended.

        Raises:
            NonFiniteOutput: as ``evaluate``.
        """
        configuration, split, metric = run.configuration, run.split, self.task.metric
        before = self._float_statistics()
        found: Statistics = {}
        started, failure = time.perf_counter(), None
        with ExitStack() as stack:
            stack.enter_context(freed_memory_kept())
            model = stack.enter_context(self.quantized.applied(configuration))
            stack.enter_context(torch.no_grad())
            if self.reestimate_batch_norm:
                found = batch_norm_statistics(model, self.task.calibration, before)
                stack.enter_context(taken_on(model, found))
            while not run.ended:
                output = output_tensor(on_device(self.task.split(split)[run.position], model)(model))
                try:
                    run.take(self.judged(output, split, run.position))
                except NonFiniteOutput as cause:
                    failure = cause
                    break
        if failure is not None:
            raise self.located(failure, configuration, split, run.position, found)
        run.seconds += time.perf_counter() - started
        return run.measured(metric)

    def evaluate_many(
        self,
        configurations: Sequence[Mapping[str, str]],
        split: Split = "validation",
        races: Sequence[Race | None] | None = None,
        done: Done | None = None,
        *,
        known: Sequence[Measurement | None] | None = None,
        batches: int | None = None,
    ) -> list[Evaluation]:
        """Measure a shard of configurations, batch by batch.

        Args:
            configurations: as for ``evaluate``, in any order.
            split: which data.
            races: one for each configuration, or ``None``; only those with a race may get a measurement of fewer
                samples than were asked for.
            done: called with the index and the result of each configuration when it is known.
            known: for each configuration an earlier measurement of the first batches, or ``None``.
            batches: measure only on the first so many; ``None``: all.

        Returns:
            A result for each configuration, in the order given: the measurement that ``evaluate`` gives (its
            ``seconds`` without what was computed for others), or the error if its output is not finite.

        Raises:
            NonFiniteOutput: the float model gives NaN or infinity.
            InvalidInput: as ``evaluate``; or there are not as many races, or known measurements, as configurations.
        """
        count = len(configurations)
        races = [None] * count if races is None else races
        known = [None] * count if known is None else known
        for name, given in (("races", races), ("known measurements", known)):
            if len(given) != count:
                raise InvalidInput(f"{len(given)} {name} for {count} configurations; give one, or None, for each")
        with freed_memory_kept():
            self.references(split)
            self._float_statistics()
            runs = [
                Run.of(self.task, each, split, race, before, batches)
                for each, race, before in zip(configurations, races, known, strict=True)
            ]
            shard = Shard(self, runs, done)
            if self.replayer.worthwhile(sum(not run.ended for run in runs), split):
                shard.run_by_batch()
            shard.run_alone()
        return [shard.results[index] for index in range(count)]

    def order(self, configurations: Sequence[Mapping[str, str]]) -> list[int]:
        """Indices of configurations, sorted so that neighbours agree on the first executed sites for long.

        Cut a long list into shards in this order.
        """
        keys = [execution_key(each, self.quantized.space.names) for each in configurations]
        return sorted(range(len(keys)), key=keys.__getitem__)

    def _float_statistics(self) -> Statistics:
        """Those of the float model on the calibration data; empty if none are estimated again.

        Raises:
            NonFiniteOutput: they are not finite.
        """
        if self._before is None:
            try:
                again = self.reestimate_batch_norm
                self._before = batch_norm_statistics(self.task.model, self.task.calibration) if again else {}
            except NonFiniteOutput as cause:
                raise NonFiniteOutput(f"the float model on the calibration data: {cause}") from cause
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
        self,
        cause: NonFiniteOutput,
        configuration: Mapping[str, str],
        split: Split,
        position: int,
        statistics: Statistics | None = None,
    ) -> NonFiniteOutput:
        """The error for an output that is not finite, with the first offending site.

        Args:
            cause: what was seen.
            configuration: with which.
            split: on which data.
            position: of the batch.
            statistics: of batch normalization that were taken on with it.
        """
        where = first_non_finite(self.quantized, configuration, self.task.split(split)[position], statistics)
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
        InvalidInput: the configuration is no mapping, or names sites that the model does not have, or formats that
            they cannot take; or there is no such split.
    """
    if not isinstance(configuration, Mapping):
        raise InvalidInput(
            f"a configuration is a mapping {{site name: format name}}, got {type(configuration).__name__}"
        )
    task.split(split)  # refused before anything is computed
    formats = sorted({*configuration.values(), "fp32"})
    space = SearchSpace.from_model(task.model, task.calibration[0], formats=formats, ties="none")
    unknown = sorted(set(configuration) - set(space.names))
    if unknown:
        near = difflib.get_close_matches(unknown[0], space.names, n=3, cutoff=0.3) or space.names[:3]
        raise InvalidInput(f"unknown sites {', '.join(unknown[:5])}; nearest to the first: {', '.join(near)}")
    space.choice({name: configuration.get(name, "fp32") for name in space.names})
    chosen = [replace(site, formats=(configuration[site.name],)) for site in space.sites if site.name in configuration]
    return FakeQuantEvaluator(task, replace(space, sites=chosen)).evaluate(configuration, split)


def evaluation_context(
    task: Task, calibration: Calibration, split: Split, *, reestimate_batch_norm: bool = False
) -> str:
    """Key under which evaluations are stored: everything that a measurement depends on but the configuration.

    Args:
        task: weights, metric, and the data of the split.
        calibration: scales and ranges, and the version of the quantizers.
        split: which data.
        reestimate_batch_norm: whether the statistics of batch normalization are estimated again for every
            configuration; it makes no difference for a model without.
    """
    again = "-bn" if reestimate_batch_norm and batch_norms(task.model) else ""
    return f"v{VERSION}-{task.digest(split)}-{calibration.digest}{again}"
