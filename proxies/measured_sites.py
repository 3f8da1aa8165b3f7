r"""Measures configurations that quantize some sites and leave the others in float, on a sample of calibration data.

What it costs: the evaluator sorts the configurations by the first site that they change, keeps the activations of the
float model where they begin to differ, and runs of each only the part of the network after that site (activation reuse;
``evaluators/replay``). On the same batches the numbers are those of a plain loop over whole runs, to the bit. Where the
layers of a network cost alike this saves half of the operations (``benchmarks/one_layer.py``). Positions that are
padding are not computed (``padding``); that changes numbers by rounding errors.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import NonFiniteOutput
from ..evaluators import FakeQuantEvaluator
from ..evaluators.float_run import on_device
from ..evaluators.metrics import output_tensor
from ..evaluators.replay import freed_memory_kept
from ..formats import Format

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..evaluators import QuantizedModel
    from ..evaluators.quantized_model import Changes
    from ..evaluators.replay import PrefixRunner
    from ..space import Site
    from ..task import Batch, Task
    from .sensitivity import Advance


def sampled_task(task: Task, batches: Sequence[Batch], quality: Any) -> Task:
    """The task with other calibration data and another metric; it holds no validation data."""
    found = copy.copy(task)
    found.calibration, found.validation, found.holdout = list(batches), [], []
    found.quality = quality
    return found


def increases(
    evaluator: FakeQuantEvaluator, configurations: Sequence[Mapping[str, str]], advance: Advance | None
) -> NDArray[np.float64]:
    """What the metric rises by against the float model, for every calibration sample.

    Args:
        evaluator: of a task whose calibration data is the sample.
        configurations: sites left out stay in float.
        advance: called with 1 for every configuration, while the last batch is run.

    Returns:
        float64 [configurations, samples].

    Raises:
        NonFiniteOutput: a configuration, or the float model, gives NaN or infinity.
    """
    outputs = evaluator.references("calibration")
    base = [evaluator.judged(output, "calibration", position) for position, output in enumerate(outputs)]
    found = np.empty((len(configurations), sum(map(len, base))))
    changes = [evaluator.quantized.changes(each) for each in configurations]
    reuse = evaluator.replayer.worthwhile(len(configurations), "calibration")
    start = 0
    with freed_memory_kept(), torch.no_grad():
        for position, expected in enumerate(base):
            runner = evaluator.replayer.runner("calibration", position) if reuse else None
            for index, output in _outputs(evaluator, configurations, changes, position, runner):
                try:
                    values = evaluator.judged(output_tensor(output), "calibration", position)
                except NonFiniteOutput as cause:
                    where = ", ".join(f"{site} in {name}" for site, name in configurations[index].items())
                    raise NonFiniteOutput(
                        f"{cause} ({where}, all else in float); leave the format out there"
                    ) from cause
                found[index, start : start + len(expected)] = values - expected
                if advance and position == len(base) - 1:
                    advance(1)
            start += len(expected)
    return found


def _outputs(
    evaluator: FakeQuantEvaluator,
    configurations: Sequence[Mapping[str, str]],
    changes: Sequence[Changes],
    position: int,
    runner: PrefixRunner | None,
) -> Iterator[tuple[int, Any]]:
    """What every configuration gives on one batch, with its index; in the order of the replay."""
    batch = on_device(evaluator.task.calibration[position], evaluator.task.model)
    indices = list(range(len(configurations)))
    replayed = (
        [] if runner is None else [i for i in indices if not runner.program.unreachable & changes[i].rounding.keys()]
    )
    if runner is not None:
        picked = [changes[index] for index in replayed]
        signatures = [runner.signature(each) for each in picked]
        for output in runner.outputs(list(batch.tensors.values()), picked, signatures):
            yield replayed[output.index], output.value
    for index in sorted({*indices} - {*replayed}):
        with evaluator.quantized.applied(configurations[index]) as model:
            yield index, batch(model)


def one_by_one(evaluator: FakeQuantEvaluator, advance: Advance | None) -> tuple[NDArray[np.float64], int]:
    """Every site in every format alone, all others in float.

    Args:
        evaluator: of a task whose calibration data is the sample.
        advance: called with 1 for every (site, format) that is offered.

    Returns:
        What the metric rises by, float64 [samples, sites, formats], NaN where a format is not offered and 0 where it
        changes nothing; and how many configurations were run.
    """
    space = evaluator.quantized.space
    offered = np.argwhere(space.allowed).tolist()
    cells = [
        (row, column)
        for row, column in offered
        if changes_something(evaluator.quantized, space.sites[row], space.formats[column])
    ]
    if advance:
        advance(len(offered) - len(cells))
    found = increases(evaluator, [{space.names[row]: space.formats[column]} for row, column in cells], advance)
    values = np.where(space.allowed, 0.0, np.nan)[None].repeat(found.shape[1], 0)
    for (row, column), each in zip(cells, found, strict=True):
        values[:, row, column] = each
    return values, len(cells)


def changes_something(quantized: QuantizedModel, site: Site, name: str) -> bool:
    """Whether a format alters anything: not for fp32 of a float32 model."""
    changes, target = quantized.changes({site.name: name}), Format.parse(name).weight
    if changes.rounding or changes.biases or not target.is_wide:
        return True
    return not torch.equal(quantized.weight(site, target), quantized.model.get_parameter(site.parameter))
