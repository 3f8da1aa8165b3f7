r"""Measured perturbation: one site quantized at a time, the model really run, the change at its output.

.. math:: s[l, f] = \frac1N \sum_n D\bigl( M(x_n),\; M_{l \to f}(x_n) \bigr)

with M the float model, :math:`M_{l \to f}` the same with site l in format f (weight, input activation, corrected bias)
and x_n a seeded sample of the calibration data.

====================  ==============================================================================================
proxy                 D
====================  ==============================================================================================
``measured_kl``       KL divergence of the softmax outputs (Cai et al. 2020, ZeroQ, arXiv:2001.00281, eq. 2). Where
                      the task's metric is ``cosine``, that distance; where it is ``relative_error`` or the outputs
                      are no logits, half the squared relative error. No labels are used.
``measured_loss``     increase of the task's loss, where it is one against labels; else as ``measured_kl``. With this
                      it is the measured counterpart of what the gradient proxies predict.
``measured_quality``  increase of the task's own metric (phase 1 of AIMET's automatic mixed precision). Metrics such as
                      top-1 error saturate and do not add up over the sites, so it only ranks. Of perplexity the
                      logarithm is taken.
====================  ==============================================================================================

A relative error is a norm, and errors of several sites add up in squares; hence the square in ``measured_kl``.
Interactions between sites are not seen; ``pairwise`` measures them. The standard error is that over the samples.
``measured_sites`` tells what it costs.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch

from ..evaluators import FakeQuantEvaluator
from ..evaluators.float_run import run_float
from ..evaluators.metrics import output_tensor
from ..task import SELF_REFERENCED
from .gradient_errors import mean_and_error
from .likelihood import objective_has_labels
from .measured_sample import seeded_sample
from .measured_sites import one_by_one, sampled_task
from .padding import without_padding
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Batch, Task


class _Measured(ABC):
    """What the three have in common.

    Args:
        samples: calibration samples, drawn with the seed.
        batch: how many are run at a time; ``None``: as in the data, more where inputs are small.
    """

    name: str
    additive = True
    gradients = 0

    def __init__(self, samples: int = 64, batch: int | None = None) -> None:
        self.samples = samples
        self.batch = batch

    @abstractmethod
    def quality(self, task: Task, example: Batch) -> Any:
        """The metric that is measured."""

    def steps(self, task: Task, space: SearchSpace) -> int:
        """One for every (site, format) that is offered."""
        return int(space.allowed.sum())

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring. ``forward_passes`` counts a part of a pass as one.

        Raises:
            InvalidInput: the metric needs labels that the calibration data does not have.
            NonFiniteOutput: a format gives NaN or infinity.
        """
        started = time.perf_counter()
        drawn = seeded_sample(task.calibration, self.samples, self.batch, seed, self.name)
        batches = without_padding(task.model, drawn)
        quality = self.quality(task, batches[0].piece(0, 1))
        evaluator = FakeQuantEvaluator(sampled_task(task, batches, quality), space, calibration)
        each, runs = one_by_one(evaluator, advance)
        if quality == "relative_error" and self.additive:
            each = 0.5 * each**2
        values, error = mean_and_error(each)
        seconds, passes = time.perf_counter() - started, (runs + 1) * len(each)
        return Sensitivity(
            self.name, values, error, tuple(space.names), space.formats, seconds, passes, additive=self.additive
        )


class MeasuredKL(_Measured):
    """Distance of the outputs to the float model's, one site quantized at a time."""

    name = "measured_kl"
    summary = "one site quantized at a time and run: KL divergence (or the task's distance) to the float outputs"
    source = "Cai et al. 2020, ZeroQ, arXiv:2001.00281, eq. 2"

    def quality(self, task: Task, example: Batch) -> Any:
        """The task's distance to the float outputs, where it is one; else the KL divergence, where outputs are logits.

        Args:
            task: the task.
            example: one sample.
        """
        return _distance(task, example)


class MeasuredLoss(_Measured):
    """Increase of the loss, one site quantized at a time."""

    name = "measured_loss"
    summary = "one site quantized at a time and run: increase of the task's loss"
    source = "the exact value of what HAWQ-V2 (arXiv:1911.03852, eq. 6) approximates to second order"

    def quality(self, task: Task, example: Batch) -> Any:
        """The task's loss, where it is one against labels; else as ``measured_kl``.

        Args:
            task: the task.
            example: one sample.
        """
        return "loss" if objective_has_labels(task) else _distance(task, example)


class MeasuredQuality(_Measured):
    """Increase of the task's own metric, one site quantized at a time."""

    name = "measured_quality"
    summary = "one site quantized at a time and run: increase of the task's own metric; ranks only"
    source = "Qualcomm AIMET, automatic mixed precision, phase 1"
    additive = False

    def quality(self, task: Task, example: Batch) -> Any:
        """The task's metric.

        Args:
            task: the task.
            example: one sample.
        """
        return task.quality


def _distance(task: Task, example: Batch) -> str:
    if isinstance(task.quality, str) and task.quality in SELF_REFERENCED:
        return task.quality
    with torch.no_grad():
        output = output_tensor(run_float(task.model, example, "calibration"))
    return "kl" if output.ndim >= 2 and output.shape[-1] >= 2 else "relative_error"
