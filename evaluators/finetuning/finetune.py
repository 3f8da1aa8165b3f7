"""``finetune``: quantization-aware finetuning of a chosen configuration, an optional last step after a search."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...errors import InvalidInput, NonFiniteOutput
from ...measurement import Difference, Measurement, difference
from ...space import Configuration, SearchSpace
from ...task import Batch
from ..calibrate import calibrate
from ..calibration import Advance, Calibration
from ..float_run import on_device, run_float
from ..metrics import objective, output_tensor, per_sample, task_loss
from ..quantized_model import QuantizedModel
from .student import Student

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...task import Task

LOSSES = ("distillation", "task")
_WARM_UP = 0.1  # share of the steps
_KEPT_ASIDE = 0.2  # share of the calibration data that decides when to stop

_Pair = tuple[Batch, "Tensor"]  # a batch, and the float model's output for it


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training part of the calibration data.

    Attributes:
        number: 0 is the state before the first step.
        training: mean loss of the epoch's batches while they were learnt from; NaN for epoch 0.
        kept_aside: mean loss of the part that is not learnt from.
    """

    number: int
    training: float
    kept_aside: float


@dataclass(frozen=True)
class Finetuned:
    """What finetuning made of a configuration. Not a post-training result: the weights have changed.

    ``QuantizedModel(model, space, calibration)`` under the configuration gives the outputs that ``after`` measured, and
    ``export`` without ``batch_norm`` writes that function. An evaluator of a task with this model gives the same values
    for metrics that need no float model (``loss``, ``accuracy``, ``topK``, ``perplexity``, callables), but not for
    ``kl``, ``relative_error`` and ``cosine``: it compares with the finetuned float model, ``after`` with the caller's.

    Attributes:
        model: a copy of the float model with the learnt weights; the caller's model is unchanged.
        space: the sites of the configuration, with the one format that each has.
        configuration: what was finetuned.
        calibration: the learnt scales and ranges, for this model and configuration alone.
        history: the epochs; the one with the smallest loss on the part kept aside was taken. Where that is epoch 0,
            ``model`` is a copy of the float model as it was, ``calibration`` the one to begin with, and ``after`` is
            ``before``.
        before: the configuration with the calibration to begin with, on the holdout, without finetuning: the quality
            that ``FakeQuantEvaluator(task, space, calibration)`` measures. The statistics of batch normalization are
            those of the float model, as in ``after``; a search with ``Recipe.batch_norm`` estimates them again, so its
            number for the same configuration is another.
        after: the same with the learnt weights and scales. Both compare with the outputs of the caller's float model.
        seconds: wall time of the training.
    """

    model: nn.Module = field(repr=False)
    space: SearchSpace = field(repr=False)
    configuration: Configuration
    calibration: Calibration = field(repr=False)
    history: tuple[Epoch, ...]
    before: Measurement
    after: Measurement
    seconds: float

    @property
    def best(self) -> Epoch:
        """The epoch whose weights were taken."""
        return _best(self.history)

    @property
    def gained(self) -> bool:
        """Whether an epoch was better than the start on the part kept aside; if not, nothing was changed."""
        return self.best.number > 0

    @property
    def difference(self) -> Difference:
        """After minus before on the same samples, with its interval."""
        return difference(self.after, self.before)

    @property
    def summary(self) -> str:
        """One line for reports, to be shown apart from post-training results."""
        gap, metric, epochs = self.difference, self.after.metric, len(self.history) - 1
        if not self.gained:
            return f"quantization-aware finetuning gained nothing in {epochs} epochs; the weights are as they were"
        return (
            f"with quantization-aware finetuning (epoch {self.best.number} of {epochs}, {self.seconds:.0f} s): "
            f"{metric} {self.before.value:.4g} -> {self.after.value:.4g} on {self.after.samples} held-out samples "
            f"(difference {gap.value:.3g} [{gap.low:.3g}, {gap.high:.3g}]); the weights have changed, this is no "
            "post-training result"
        )


def finetune(
    task: Task,
    space: SearchSpace,
    configuration: Mapping[str, str],
    calibration: Calibration | None = None,
    *,
    epochs: int = 20,
    learning_rate: float = 3e-4,
    loss: str = "distillation",
    patience: int = 8,
    seed: int = 0,
    advance: Advance | None = None,
) -> Finetuned:
    """Learn the weights and step sizes of one configuration on the calibration data.

    Every forward pass is fake-quantized; gradients pass the rounding straight through, integer weights and static
    integer activations learn their steps as well (LSQ: ``learned_step``). Adam, learning rate falling to 0 along a
    cosine after a short warm-up. A fifth of the calibration data is kept aside and decides which epoch is taken, epoch
    0 among them; validation and holdout data are never learnt from. The model stays in evaluation mode: batch
    normalization keeps its statistics, nothing is dropped out. It should compute in float32: small steps vanish in a
    16-bit weight.

    Args:
        task: float model (the teacher), data and metric.
        space: its sites.
        configuration: ``{site name: format name}``; sites left out stay in float, but their weights learn too.
        calibration: scales, ranges, codes and bias corrections to begin with; by default ``calibrate`` with defaults.
        epochs: most passes over the data.
        learning_rate: of Adam for the weights, and for the logarithms of the steps.
        loss: ``"distillation"``: the divergence from the float model's outputs (the mean metric for ``cosine``, the
            relative squared error for ``relative_error`` and for outputs that are no logits); ``"task"``: the task's
            loss on the targets.
        patience: stop after so many epochs without a smaller loss on the part kept aside.
        seed: for what is kept aside (batches, or samples where there is only one batch) and the order of the batches.
        advance: called with 1 after each epoch.

    Returns:
        The finetuned model with its calibration and measurements; where no epoch was better than the start, the model
        and the calibration as they were.

    Raises:
        InvalidInput: an argument out of range, a configuration that does not fit, or too little calibration data.
        NonFiniteOutput: the loss became NaN or infinite.
    """
    _check(epochs, learning_rate, loss, patience)
    started, space = time.perf_counter(), _restricted(space, configuration)
    calibration = calibration or calibrate(task, space)
    student = Student(task.model, space, configuration, calibration)
    generator = torch.Generator().manual_seed(seed)
    training, kept = (_with_references(task, part) for part in _divided(task.calibration, generator))
    history = _trained(task, student, training, kept, loss, (epochs, learning_rate, patience), generator, advance)
    seconds = time.perf_counter() - started
    before = _measured(task, QuantizedModel(task.model, space, calibration), configuration)
    model, learnt, after = copy.deepcopy(task.model).eval(), calibration, before
    if _best(history).number:
        model, learnt = student.model, student.calibration()
        for mine, given in zip(model.parameters(), task.model.parameters(), strict=True):
            mine.requires_grad_(given.requires_grad)
        after = _measured(task, QuantizedModel(model, space, learnt), configuration)
    chosen = Configuration.from_dict(configuration)
    return Finetuned(model, space, chosen, learnt, tuple(history), before, after, seconds)


def _check(epochs: int, learning_rate: float, loss: str, patience: int) -> None:
    if epochs < 1 or patience < 1:
        raise InvalidInput(f"epochs={epochs} and patience={patience}: finetuning needs at least 1 of each")
    if not 0 < learning_rate < math.inf:
        raise InvalidInput(f"learning_rate={learning_rate} must be positive, such as 0.0003")
    if loss not in LOSSES:
        raise InvalidInput(f"unknown loss {loss!r} for finetuning; choose {' or '.join(LOSSES)}")


def _restricted(space: SearchSpace, configuration: Mapping[str, str]) -> SearchSpace:
    """The sites that the configuration names, each with the one format that it takes.

    Raises:
        InvalidInput: it names no site, an unknown one, or a format that a site does not offer.
    """
    unknown = sorted(set(configuration) - set(space.names))
    if unknown or not configuration:
        named = ", ".join(unknown[:5]) or "no site"
        raise InvalidInput(f"the configuration names {named}; this space has {', '.join(space.names[:5])}, …")
    for site in space.sites:
        wanted = configuration.get(site.name)
        if wanted is not None and not site.offers(wanted):
            raise InvalidInput(f"site {site.name} does not offer {wanted!r}; it offers {', '.join(site.formats)}")
    sites = [replace(site, formats=(configuration[site.name],)) for site in space.sites if site.name in configuration]
    return replace(space, sites=sites, ties=[])


def _divided(batches: list[Batch], generator: torch.Generator) -> tuple[list[Batch], list[Batch]]:
    """What is learnt from, and what is kept aside: whole batches, or samples where there is only one batch."""
    if len(batches) == 1:
        (batch,), samples = batches, len(batches[0])
        if samples < 2:
            raise InvalidInput("finetuning needs at least two calibration samples, one of them to be kept aside")
        shuffled, aside = torch.randperm(samples, generator=generator), max(1, round(_KEPT_ASIDE * samples))
        return [_samples(batch, shuffled[aside:].sort().values)], [_samples(batch, shuffled[:aside].sort().values)]
    order = torch.randperm(len(batches), generator=generator).tolist()
    aside = max(1, round(_KEPT_ASIDE * len(batches)))
    return [batches[index] for index in sorted(order[aside:])], [batches[index] for index in sorted(order[:aside])]


def _samples(batch: Batch, index: Tensor) -> Batch:
    targets = None if batch.targets is None else batch.targets[index]
    if isinstance(batch.inputs, dict):
        return Batch({name: tensor[index] for name, tensor in batch.inputs.items()}, targets)
    return Batch(tuple(tensor[index] for tensor in batch.inputs), targets)


def _with_references(task: Task, batches: list[Batch]) -> list[_Pair]:
    """The batches, on the device of the model, and the float model's outputs."""
    placed = [on_device(batch, task.model) for batch in batches]
    with torch.no_grad():
        return [(batch, output_tensor(run_float(task.model, batch, "calibration"))) for batch in placed]


def _trained(
    task: Task,
    student: Student,
    training: list[_Pair],
    kept: list[_Pair],
    loss: str,
    plan: tuple[int, float, int],
    generator: torch.Generator,
    advance: Advance | None,
) -> list[Epoch]:
    """Train the student; it ends in the state of the best epoch."""
    epochs, rate, patience = plan
    optimizer = torch.optim.Adam([*student.parameters, *student.steps], lr=rate)
    steps = epochs * len(training)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    history, best = [Epoch(0, math.nan, _mean_loss(task, student, kept, loss))], student.state()
    for number in range(1, epochs + 1):
        losses = []
        with student.running() as run, torch.enable_grad():
            for index in torch.randperm(len(training), generator=generator).tolist():
                batch, reference = training[index]
                optimizer.zero_grad()
                found = _loss(task, output_tensor(run(batch)), reference, batch, loss)
                found.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                losses.append(float(found.detach()))
        if not np.isfinite(losses).all():
            raise NonFiniteOutput(f"the loss is NaN or infinite in epoch {number}; choose a smaller learning_rate")
        history.append(Epoch(number, float(np.mean(losses)), _mean_loss(task, student, kept, loss)))
        smallest = _best(history)
        if smallest.number == number:
            best = student.state()
        if advance:
            advance(1)
        if number - smallest.number >= patience:
            break
    student.load(best)
    return history


def _best(history: Sequence[Epoch]) -> Epoch:
    return min(history, key=lambda epoch: epoch.kept_aside)


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate: a linear warm-up (Adam's first steps have full length), then half a cosine."""
    warm = max(1.0, _WARM_UP * steps)
    return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))


def _loss(task: Task, output: Tensor, reference: Tensor, batch: Batch, loss: str) -> Tensor:
    if loss == "distillation":
        return objective(task, output, reference, None)
    if batch.targets is None:
        raise InvalidInput("loss='task' needs targets in the calibration data; give them, or choose 'distillation'")
    return task_loss(task, output, batch.targets)


def _mean_loss(task: Task, student: Student, pairs: list[_Pair], loss: str) -> float:
    """Mean over the samples."""
    with student.running() as run, torch.no_grad():
        losses = [float(_loss(task, output_tensor(run(batch)), reference, batch, loss)) for batch, reference in pairs]
    mean = float(np.average(losses, weights=[len(batch) for batch, _ in pairs]))
    if not math.isfinite(mean):
        raise NonFiniteOutput("the loss is NaN or infinite on the calibration data; check the loss and the model")
    return mean


def _measured(task: Task, quantized: QuantizedModel, configuration: Mapping[str, str]) -> Measurement:
    """The quality on the holdout, against the caller's float model (which an evaluator of the copy would not know)."""
    started, values = time.perf_counter(), []
    batches = [on_device(batch, task.model) for batch in task.holdout]
    with torch.no_grad():
        references = [output_tensor(run_float(task.model, batch, "holdout")) for batch in batches]
        with quantized.applied(configuration) as model:
            for batch, reference in zip(batches, references, strict=True):
                values.append(per_sample(task, output_tensor(batch(model)), reference, batch.targets))
    seconds = time.perf_counter() - started
    return Measurement.of(task.metric, "holdout", torch.cat(values).cpu().numpy().astype(np.float64), seconds)
