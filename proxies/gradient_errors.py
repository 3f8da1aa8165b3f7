r"""Gradients times quantization errors, element by element: the sums that Fisher and first-order proxies are made of.

.. math::
    c_n[l, f] = \sum_{i \in W_l} | s_{n,i} \, (Q_f(W_l) - W_l)_i |^p
              + \sum_{j \in a_l} | s_{n,j} \, (Q_f(a_l) - a_l)_j |^p

for each calibration sample n, with s_n its gradient with respect to the weights and to the activation that enters the
site's modules, where the format rounds it. Samples run one at a time: the square of a gradient that is summed over a
batch is not the sum of the squares.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import InvalidInput, NonFiniteOutput
from ..evaluators import QuantizedModel
from ..evaluators.float_run import on_device
from ..evaluators.metrics import output_tensor
from ..formats import Format, weight_name
from .layer_calls import activation_columns
from .likelihood import Source, score
from .recording import Recorder, not_differentiable, single_samples
from .sample_loop import over_passes
from .sensitivity import Sensitivity

if TYPE_CHECKING:
    from torch import Tensor

    from ..evaluators import Calibration
    from ..space import SearchSpace, Site
    from ..task import Batch, Task
    from .recording import Call, Pass
    from .sensitivity import Advance

ERROR_BYTES = 1 << 30  # what the errors of the weights of one block of sites may take; each block runs the samples


@dataclass(frozen=True)
class Setting:
    """How gradients are drawn and used.

    Attributes:
        proxy: name, for messages.
        source: of the gradients at the outputs.
        samples: calibration samples, from the first.
        draws: gradients per sample; with labels of the data all would be the same, so it must be one there.
        power: p; with 2 the gradients are roots of the curvature, with 1 those of the objective itself.
    """

    proxy: str
    source: Source
    samples: int
    draws: int = 1
    power: int = 2

    def __post_init__(self) -> None:
        if self.samples < 1 or self.draws < 1:
            raise InvalidInput(f"{self.proxy} needs samples and draws of at least 1, got {self.samples}, {self.draws}")


def passes(task: Task, space: SearchSpace, samples: int) -> int:
    """How many forward passes of one sample ``products`` makes."""
    return min(samples, task.samples("calibration")) * len(list(blocks(space)))


def products(
    task: Task, space: SearchSpace, calibration: Calibration, setting: Setting, seed: int, advance: Advance | None
) -> np.ndarray:
    """The sums of the module docstring, averaged over the draws.

    Args:
        task: model, calibration data and objective.
        space: sites and formats.
        calibration: scales and ranges.
        setting: see there.
        seed: of the draws; every block of sites sees the same ones.
        advance: called after every pass.

    Returns:
        float64 [samples, sites, formats]; NaN where a format is not offered, 0 where it changes nothing.

    Raises:
        UnsupportedModel: the model cannot be differentiated.
        NonFiniteOutput: a gradient is not finite; the message names the site.
        InvalidInput: the task's loss does not suit the source.
    """
    batches = single_samples(task, setting.samples)
    values = np.where(space.allowed, 0.0, np.nan)[None].repeat(len(batches), 0)
    reached: set[int] = set()
    for rows in blocks(space):
        part = replace(space, sites=[space.sites[row] for row in rows], ties=[])
        generator, mine = torch.Generator().manual_seed(seed), values[:, rows.start : rows.stop]
        block = _Block(task, part, calibration, setting, generator, mine)
        over_passes(task, block.recorder, batches, setting.proxy, setting.source, block.add, advance)
        reached.update(rows.start + row for row in block.reached)
    quantized = QuantizedModel(task.model, space, calibration, cache_bytes=0)
    check_reached(task, quantized, reached, batches[0])
    if not np.isfinite(values[:, space.allowed]).all():
        row = int(np.argwhere((~np.isfinite(values) & space.allowed).any(axis=(0, 2)))[0][0])
        raise NonFiniteOutput(f"proxy {setting.proxy}: the gradient at site {space.sites[row].name} is NaN or infinite")
    return values


def averaged(
    task: Task,
    space: SearchSpace,
    calibration: Calibration,
    setting: Setting,
    seed: int,
    advance: Advance | None,
    factor: float = 1.0,
    extra: tuple[np.ndarray, int] | None = None,
) -> Sensitivity:
    """The scores of a proxy: the mean of ``products`` over the samples, times a factor, with its standard error.

    Args:
        task: model, calibration data and objective.
        space: sites and formats.
        calibration: scales and ranges.
        setting: see there.
        seed: of the draws.
        advance: called after every pass.
        factor: 1/2 for a second-order Taylor term.
        extra: what is added to every sample [samples, sites, formats], and the samples that it took.

    Raises:
        UnsupportedModel: the model cannot be differentiated.
        NonFiniteOutput: a gradient is not finite; the message names the site.
        InvalidInput: the task's loss does not suit the source.
    """
    started = time.perf_counter()
    each = factor * products(task, space, calibration, setting, seed, advance)
    count = passes(task, space, setting.samples)
    backward = count * setting.draws
    if extra is not None:
        each, count, backward = each + extra[0], count + extra[1], backward + extra[1]
    values, error = mean_and_error(each)
    names, seconds = tuple(space.names), time.perf_counter() - started
    return Sensitivity(setting.proxy, values, error, names, space.formats, seconds, count, backward)


def mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean over samples, and its standard error; ``None`` for a single sample, which does not show it."""
    if len(values) < 2:
        return values[0], None
    return values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values))


def blocks(space: SearchSpace, limit: int | None = None) -> Iterator[range]:
    """Consecutive sites whose weight errors fit into memory together; a block has at least one site."""
    start, held = 0, 0
    for row, site in enumerate(space.sites):
        size = 4 * site.elements * len({weight_name(Format.parse(name).weight) for name in site.formats})
        if row > start and held + size > (ERROR_BYTES if limit is None else limit):
            yield range(start, row)
            start, held = row, 0
        held += size
    yield range(start, len(space.sites))


def rounded_modules(quantized: QuantizedModel, space: SearchSpace) -> list[str]:
    """Paths of the modules whose input some offered format rounds."""
    return [
        module
        for site in space.sites
        for module in site.modules
        if any(quantized.rounding(site, module, Format.parse(name)) is not None for name in site.formats)
    ]


def input_errors(quantized: QuantizedModel, call: Call) -> list[tuple[list[int], Tensor]]:
    """Q(a) - a of a recorded activation for every distinct activation format, with the columns that use it."""
    value = call.value
    if value is None:
        return []
    return [
        (found, (quantized.rule(call.module, target)[1](value) - value).float())
        for target, found in activation_columns(quantized, call.row, call.module).items()
    ]


def check_reached(task: Task, quantized: QuantizedModel, reached: set[int], batch: Batch) -> None:
    """Refuse a model in which no gradient reaches a site that its output depends on, such as behind ``detach``.

    Sites that the judged output does not depend on (an unused head) have score 0, rightly.

    Raises:
        UnsupportedModel: quantizing a site without gradient changes the output.
    """
    batch = on_device(batch, task.model)
    for row, site in enumerate(quantized.space.sites):
        if row in reached:
            continue
        with torch.no_grad():
            with quantized.applied({}) as model:
                plain = output_tensor(batch(model)).clone()
            with quantized.applied({site.name: site.formats[0]}) as model:
                changed = output_tensor(batch(model))
        if not torch.equal(plain, changed):
            raise not_differentiable(f"no gradient reaches site {site.name}, on which its output depends")


class _Block:
    """Some sites, with the errors of their weights in every format."""

    def __init__(
        self,
        task: Task,
        space: SearchSpace,
        calibration: Calibration,
        setting: Setting,
        generator: torch.Generator,
        values: np.ndarray,
    ) -> None:
        self.task = task
        self.space = space
        self.setting = setting
        self.generator = generator
        self.values = values  # [samples, sites, formats], filled by ``add``
        self.quantized = QuantizedModel(task.model, space, calibration, cache_bytes=0)
        self.errors = [self._weight_errors(site) for site in space.sites]
        self.recorder = Recorder(task.model, space, rounded_modules(self.quantized, space))
        self.reached: set[int] = set()

    def add(self, position: int, run: Pass) -> None:
        """Add the contributions of one sample."""
        setting, values = self.setting, self.values[position]
        inputs = [call for call in run.calls if call.value is not None]
        wanted = [*run.weights, *(call.value for call in inputs if call.value is not None)]
        for draw in range(setting.draws):
            drawn = score(self.task, run.output, run.targets, setting.source, self.generator)
            gradients = run.gradients(wanted, drawn.seed, again=draw + 1 < setting.draws)
            factor = (drawn.root if setting.power == 2 else drawn.scale) ** setting.power / setting.draws
            with torch.no_grad():
                self._add_weights(gradients[: len(run.weights)], factor, values)
                self._add_inputs(inputs, gradients[len(run.weights) :], factor, values)

    def _add_weights(self, gradients: list[Tensor | None], factor: float, values: np.ndarray) -> None:
        for row, (gradient, (table, columns)) in enumerate(zip(gradients, self.errors, strict=True)):
            if gradient is None:
                continue
            self.reached.add(row)
            size = gradient.float().square() if self.setting.power == 2 else gradient.float().abs()
            sums = (table @ size.flatten()).double().cpu().numpy() * factor
            for column, index in columns.items():
                values[row, column] += sums[index]

    def _add_inputs(self, calls: list[Call], gradients: list[Tensor | None], factor: float, values: np.ndarray) -> None:
        for call, gradient in zip(calls, gradients, strict=True):
            if gradient is None or call.value is None:
                continue
            for columns, error in input_errors(self.quantized, call):
                product = (gradient.float() * error).double()
                size = product.square() if self.setting.power == 2 else product.abs()
                values[call.row, columns] += float(size.sum()) * factor

    def _weight_errors(self, site: Site) -> tuple[Tensor, dict[int, int]]:
        """|Q(W) - W| ** p of every distinct weight format [formats, elements], and each column's index in it."""
        original = self.task.model.get_parameter(site.parameter).detach()
        table: list[Tensor] = []
        columns: dict[int, int] = {}
        known: dict[str, int] = {}
        for column, name in enumerate(self.space.formats):
            if not site.offers(name):
                continue
            target = Format.parse(name).weight
            if weight_name(target) not in known:
                error = self.quantized.weight(site, target).float() - original.float()
                table.append((error.square() if self.setting.power == 2 else error.abs()).flatten())
                known[weight_name(target)] = len(table) - 1
            columns[column] = known[weight_name(target)]
        return torch.stack(table), columns
