"""The evaluator: what a configuration really costs in quality."""

from __future__ import annotations

import difflib
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from ..errors import InvalidInput, NonFiniteOutput
from ..measurement import Measurement
from ..space import SearchSpace
from ..task import Split, Task
from .calibrate import calibrate
from .calibration import VERSION, Calibration
from .float_run import run_float
from .metrics import output_tensor, per_sample
from .quantized_model import QuantizedModel

if TYPE_CHECKING:
    from torch import Tensor


class Evaluator(Protocol):
    """What the search needs from an evaluator."""

    def evaluate(self, configuration: Mapping[str, str], split: Split = "validation") -> Measurement:
        """Measure the quality of one configuration on one split."""
        ...


class FakeQuantEvaluator:
    """Runs the fake-quantized model over a split and compares with the float model.

    The float outputs of each split are computed once and kept.

    Args:
        task: model, data and metric.
        space: the sites.
        calibration: scales and ranges; computed here if not given.
    """

    def __init__(self, task: Task, space: SearchSpace, calibration: Calibration | None = None) -> None:
        self.task = task
        self.quantized = QuantizedModel(task.model, space, calibration or calibrate(task, space))
        self._references: dict[str, list[Tensor]] = {}

    def evaluate(self, configuration: Mapping[str, str], split: Split = "validation") -> Measurement:
        """Measure one configuration.

        Args:
            configuration: ``{site name: format name}``; sites left out stay in float, so ``{}`` is the float model.
            split: which data.

        Returns:
            The metric over the split, with its bootstrap interval and the value of every sample.

        Raises:
            NonFiniteOutput: the float or the quantized model gives NaN or infinity.
        """
        references = self.references(split)
        started = time.perf_counter()
        values = []
        with self.quantized.applied(configuration) as model, torch.no_grad():
            for batch, reference in zip(self.task.split(split), references, strict=True):
                output = output_tensor(batch(model))
                values.append(per_sample(self.task, output, reference, batch.targets))
        seconds = time.perf_counter() - started
        return Measurement.of(self.task.metric, split, torch.cat(values).cpu().numpy().astype(np.float64), seconds)

    def references(self, split: Split) -> list[Tensor]:
        """The float model's outputs of every batch of a split."""
        if split not in self._references:
            outputs = []
            with torch.no_grad():
                for batch in self.task.split(split):
                    output = output_tensor(run_float(self.task.model, batch, split))
                    if not bool(torch.isfinite(output).all()):
                        raise NonFiniteOutput(f"the float model gives NaN or infinity on the {split} data")
                    outputs.append(output)
            self._references[split] = outputs
        return self._references[split]


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
