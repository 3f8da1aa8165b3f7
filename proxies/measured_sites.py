r"""Measures configurations that quantize some sites and leave the others in float, on a sample of calibration data.

What it costs: the evaluator sorts the configurations by the first site that they change, keeps the activations of the
float model where they begin to differ, and runs of each only the part of the network after that site (activation reuse;
``evaluators/replay``). The numbers are those of a plain loop over whole runs, to the bit.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import NonFiniteOutput
from ..evaluators import FakeQuantEvaluator
from ..formats import Format

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..evaluators import QuantizedModel
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
        advance: called with 1 for every configuration.

    Returns:
        float64 [configurations, samples].

    Raises:
        NonFiniteOutput: a configuration, or the float model, gives NaN or infinity.
    """
    outputs = evaluator.references("calibration")
    base = np.concatenate([evaluator.judged(each, "calibration", position) for position, each in enumerate(outputs)])
    done = None if advance is None else lambda index, result: advance(1)
    results = evaluator.evaluate_many(configurations, "calibration", done=done)
    found = np.empty((len(configurations), len(base)))
    for index, (configuration, result) in enumerate(zip(configurations, results, strict=True)):
        if isinstance(result, NonFiniteOutput):
            where = ", ".join(f"{site} in {name}" for site, name in configuration.items())
            raise NonFiniteOutput(f"{result} ({where}, all else in float); leave the format out there") from result
        found[index] = np.asarray(result.values) - base
    return found


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
