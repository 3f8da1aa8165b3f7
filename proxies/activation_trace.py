r"""Activation trace: the second-order loss of rounding the activations alone.

.. math::
    s[l, f] = \frac1{2N} \sum_n \frac{\operatorname{tr}(H_{a_l, n})}{m_l} \cdot
              \frac1N \sum_n \lVert Q_f(a_{l,n}) - a_{l,n} \rVert_2^2

with H_{a_l, n} the Hessian of the objective of sample n with respect to the m_l elements of the activation a_l that
enters the site. Dong et al. 2020, HAWQ-V2, arXiv:1911.03852, section 3.4: for activations the full Hessian over all
samples is too large to form even one product with, but it is block diagonal, and its average trace is the mean over the
samples. Here halved, so that it estimates the loss.
``hessian_trace`` adds it to the weights' part; here it stands alone, to choose or to judge the formats of activations.
Formats that leave activations alone score 0.

Traces, each the mean over samples and random probes:

- where the objective is a distance to the float model's own outputs, its Hessian is the Gauss-Newton matrix, and
  :math:`\lVert J^\top B u \rVert^2` for random signs u estimates its trace without bias (``likelihood``, source
  ``signs``): one backward pass, never negative;
- where it is a loss against labels, Hutchinson's :math:`v^\top H v` for random signs v: double backward. One product
  serves all sites, whose cross terms have mean zero but add noise: small traces may come out negative; ``error`` tells.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidInput, NonFiniteOutput
from ..evaluators import QuantizedModel, objective
from .first_order import first_order_terms
from .gradient_errors import input_errors, mean_and_error, rounded_modules
from .likelihood import objective_has_labels, score
from .probing import ACTIVATIONS
from .recording import Pass, Recorder, single_samples
from .second_order import differentiated, differentiated_twice
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Task
    from .recording import Call


class ActivationTrace:
    """Mean Hessian trace over activations times squared activation error, halved.

    Args:
        samples: calibration samples used.
        probes: random probes for each of them.
        first_order: whether the signed first-order term of the activations is added (``first_order``), which the paper
            leaves out; its standard error over the samples is added in squares.
    """

    name = "activation_trace"
    summary = "HAWQ-V2 for activations alone: mean Hessian trace x squared activation error; weights are ignored"
    additive = True
    gradients = 2
    source = "Dong et al. 2020 (HAWQ-V2), arXiv:1911.03852, section 3.4"

    def __init__(self, samples: int = 64, probes: int = 4, first_order: bool = False) -> None:
        self.samples = samples
        self.probes = probes
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
            InvalidInput: fewer than one sample or probe, or no format of the space rounds activations.
            UnsupportedModel: the model cannot be differentiated.
            NonFiniteOutput: a derivative is not finite.
        """
        started = time.perf_counter()
        quantized = QuantizedModel(task.model, space, calibration, cache_bytes=0)
        modules = rounded_modules(quantized, space)
        if not modules or min(self.samples, self.probes) < 1:
            raise InvalidInput(
                f"activation_trace scores formats that round activations, got {', '.join(space.formats)} and "
                f"{self.samples} samples, {self.probes} probes; offer such as w8a8, or choose hessian_trace"
            )
        batches = single_samples(task, self.samples)
        recorder = Recorder(task.model, space, modules)
        generator = torch.Generator().manual_seed(seed)
        traces = np.zeros((len(batches), len(space.sites)))
        noise, elements = np.where(space.allowed, 0.0, np.nan), np.zeros(len(space.sites))
        twice = objective_has_labels(task)
        for position, batch in enumerate(batches):
            with differentiated_twice(), recorder.run(batch) as run:
                calls = [call for call in run.calls if call.value is not None]
                probe = _hutchinson if twice else _gauss_newton
                estimates = probe(task, run, calls, generator, self.probes)
                for call, estimate in zip(calls, estimates, strict=True):
                    traces[position, call.row] += estimate
                with torch.no_grad():
                    for call in calls:
                        elements[call.row] += 0 if call.value is None else call.value.numel()
                        for columns, difference in input_errors(quantized, call):
                            noise[call.row, columns] += float(difference.double().square().sum())
            if advance:
                advance(1)
        if not np.isfinite(traces).all():
            row = int(np.argwhere(~np.isfinite(traces))[0][1])
            raise NonFiniteOutput(f"proxy activation_trace: the Hessian at site {space.sites[row].name} is not finite")
        # both sums over the samples: their ratio is the error of one element
        power = 0.5 * noise / np.maximum(elements, 1)[:, None]
        trace, spread = mean_and_error(traces)
        values, count = trace[:, None] * power, len(batches)
        error = None if spread is None else spread[:, None] * power
        backward = count * (self.probes + 1) if twice else count * self.probes
        if self.first_order:
            terms, passes = first_order_terms(task, space, calibration, batches)
            term, spread = mean_and_error(terms[:, ACTIVATIONS])
            values, count, backward = values + term, count + passes, backward + passes
            error = None if error is None or spread is None else np.hypot(error, spread)
        seconds, names = time.perf_counter() - started, tuple(space.names)
        return Sensitivity(self.name, values, error, names, space.formats, seconds, count, backward)


def _gauss_newton(
    task: Task, run: Pass, calls: list[Call], generator: torch.Generator, probes: int
) -> np.ndarray[Any, Any]:
    """Estimates of the traces at the calls, by one backward pass a probe."""
    values = [call.value for call in calls if call.value is not None]
    found = np.zeros(len(values))
    for probe in range(probes):
        drawn = score(task, run.output, run.targets, "signs", generator)
        gradients = run.gradients(values, drawn.seed, again=probe + 1 < probes)
        squares = [0.0 if each is None else float(each.double().square().sum()) for each in gradients]
        found += np.array(squares) * drawn.root**2 / probes
    return found


def _hutchinson(
    task: Task, run: Pass, calls: list[Call], generator: torch.Generator, probes: int
) -> np.ndarray[Any, Any]:
    """Estimates of the traces at the calls, by double differentiation."""
    values = [call.value for call in calls if call.value is not None]
    found = np.zeros(len(values))
    loss = objective(task, run.output, run.output.detach(), run.targets)
    gradients = differentiated(loss, values, again=True)
    for _ in range(probes):
        signs = [_signs(value, generator) for value in values]
        total = sum((each * sign).sum() for each, sign in zip(gradients, signs, strict=True) if each is not None)
        if not isinstance(total, Tensor) or not total.requires_grad:
            return found  # the loss is linear in the activations
        products = differentiated(total, values, keep=True)
        for position, (sign, product) in enumerate(zip(signs, products, strict=True)):
            found[position] += 0.0 if product is None else float((sign * product).double().sum()) / probes
    return found


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, like.shape, generator=generator, dtype=torch.int8).mul_(2).sub_(1).to(like)
