r"""FIT: trace of the Fisher matrix times the power of the quantization noise, for weights and activations.

.. math::
    s[l, f] = \frac12 \Bigl( \frac{\operatorname{tr}(\hat F_l)}{n_l} \lVert Q_f(W_l) - W_l \rVert_2^2
            + \frac{\operatorname{tr}(\hat F_{a_l})}{m_l} \lVert Q_f(a_l) - a_l \rVert_2^2 \Bigr), \qquad
    \operatorname{tr}(\hat F_l) = \frac1N \sum_n T_n \lVert \nabla_{W_l} \ell_n \rVert_2^2

with l_n the mean loss over the T_n positions of sample n, n_l weights and m_l elements (per sample) of the activation
a_l that enters the site; the second term where the format rounds it. Zandonati et al. 2022, FIT, arXiv:2210.08502,
section 3: the divergence of the quantized model is half the noise's quadratic form in the Fisher information, whose
expectation is its trace times the noise power of an element. The paper takes step ** 2 / 12 for that power and leaves
out the factor one half; here the power is that of the calibrated quantizer.

Labels: those of the data where the objective is a loss against them (the paper's empirical Fisher); for ``kl``,
``relative_error`` and ``cosine`` the expectation is over labels of the model, which gives the Fisher matrix itself; it
is estimated with random signs (``likelihood``). ``labels`` forces one or the other.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import NonFiniteOutput
from ..evaluators import QuantizedModel
from .first_order import first_order_terms
from .gradient_errors import Setting, check_reached, input_errors, mean_and_error, rounded_modules
from .likelihood import Labels, labels_of, score
from .perturbation import weight_errors
from .recording import Pass, Recorder, single_samples
from .sample_loop import over_passes
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Task


class FIT:
    """Fisher trace times noise power, for weights and rounded activations.

    Args:
        samples: calibration samples used; each is one forward and one backward pass.
        labels: ``"data"``, ``"model"``, or ``"auto"``: the data's where the objective uses them.
        first_order: whether the signed first-order term of every sample is added (``first_order``), which the paper
            leaves out.
    """

    name = "fit"
    summary = "FIT: trace of the Fisher matrix x noise power, weights and activations"
    additive = True
    gradients = 1
    source = "Zandonati et al. 2022 (FIT), arXiv:2210.08502, section 3"

    def __init__(self, samples: int = 64, labels: Labels = "auto", first_order: bool = False) -> None:
        self.samples = samples
        self.labels = labels
        self.first_order = first_order

    def steps(self, task: Task, space: SearchSpace) -> int:
        """Samples."""
        return min(self.samples, task.samples("calibration"))

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring.

        Raises:
            InvalidInput: labels of the data are asked for and there are none, or labels of the model where the task
                has a loss of its own that is not the cross-entropy of the outputs.
            UnsupportedModel: the model cannot be differentiated.
            NonFiniteOutput: a gradient is not finite.
        """
        started = time.perf_counter()
        setting = Setting(self.name, labels_of(task, self.labels, self.name), self.samples)
        batches = single_samples(task, self.samples)
        quantized = QuantizedModel(task.model, space, calibration, cache_bytes=0)
        found = _Traces(task, quantized, setting, torch.Generator().manual_seed(seed))
        over_passes(task, found.recorder, batches, self.name, setting.source, found.add, advance)
        check_reached(task, quantized, found.reached, batches[0])
        weights, activations = np.stack(found.weights)[:, :, None], np.stack(found.activations)[:, :, None]
        each = 0.5 * (weights * found.weight_noise() + activations * found.activation_noise())
        count = len(batches)
        if self.first_order:
            terms, passes = first_order_terms(task, space, calibration, batches)
            each, count = each + terms.sum(1), count + passes
        values, error = mean_and_error(each)
        if not np.isfinite(values[space.allowed]).all():
            row = int(np.argwhere(~np.isfinite(values) & space.allowed)[0][0])
            raise NonFiniteOutput(f"proxy fit: the gradient at site {space.sites[row].name} is NaN or infinite")
        seconds = time.perf_counter() - started
        return Sensitivity(self.name, values, error, tuple(space.names), space.formats, seconds, count, count)


class _Traces:
    """Fisher traces of every sample, and the errors of its activations.

    Attributes:
        weights: of every sample, the traces over the weights [sites].
        activations: likewise over the activations.
        reached: rows that some gradient reached.
    """

    def __init__(self, task: Task, quantized: QuantizedModel, setting: Setting, generator: torch.Generator) -> None:
        self.task = task
        self.generator = generator
        self.quantized = quantized
        self.setting = setting
        self.space = quantized.space
        self.recorder = Recorder(task.model, self.space, rounded_modules(quantized, self.space))
        self.weights: list[np.ndarray] = []
        self.activations: list[np.ndarray] = []
        self.reached: set[int] = set()
        self._errors = np.where(self.space.allowed, 0.0, np.nan)
        self._elements = np.zeros(len(self.space.sites))

    def add(self, position: int, run: Pass) -> None:
        """Add one sample."""
        traces = np.zeros((2, len(self.space.sites)))
        inputs = [call for call in run.calls if call.value is not None]
        wanted = [*run.weights, *(call.value for call in inputs if call.value is not None)]
        drawn = score(self.task, run.output, run.targets, self.setting.source, self.generator)
        gradients = run.gradients(wanted, drawn.seed)
        rows = [*range(len(run.weights)), *(call.row for call in inputs)]
        for index, (row, gradient) in enumerate(zip(rows, gradients, strict=True)):
            if gradient is not None:
                self.reached.add(row)
                kind = int(index >= len(run.weights))
                traces[kind, row] += float(gradient.double().square().sum()) * drawn.root**2
        with torch.no_grad():
            for call in inputs:
                self._elements[call.row] += 0 if call.value is None else call.value.numel()
                for columns, error in input_errors(self.quantized, call):
                    self._errors[call.row, columns] += float(error.double().square().sum())
        self.weights.append(traces[0])
        self.activations.append(traces[1])

    def weight_noise(self) -> np.ndarray:
        """Mean squared error of a weight [sites, formats]."""
        elements = np.array([site.elements for site in self.space.sites], dtype=np.float64)
        return weight_errors(self.task, self.space, self.quantized.calibration) / elements[:, None]

    def activation_noise(self) -> np.ndarray:
        """Mean squared error of an element of the activation [sites, formats]."""
        noise: np.ndarray = self._errors / np.maximum(self._elements, 1)[:, None]
        return noise
