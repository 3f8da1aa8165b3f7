r"""Activation trace: the second-order loss of rounding the activations alone.

.. math::
    s[l, f] = \frac1{2N} \sum_n \frac{\operatorname{tr}(H_{a_l, n})}{m_l} \cdot
              \frac1N \sum_n \lVert Q_f(a_{l,n}) - a_{l,n} \rVert_2^2

with H_{a_l, n} the Hessian of the objective of sample n with respect to the m_l elements of the activation a_l that
enters the site. Dong et al. 2020, HAWQ-V2, arXiv:1911.03852, section 3.4: for activations the full Hessian over all
samples is too large to form even one product with, but it is block diagonal, and its average trace is the mean over the
samples. Here halved, so that it estimates the loss.
HAWQ-V2 adds it to the part of the weights, and so does ``hessian_trace``, whose score is that sum: take that one to
choose formats. Here the part stands alone, to judge or to choose the formats of activations where those of the weights
are settled: formats that leave activations alone score 0, so weight-only formats of any width tie with float.

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

from ..errors import InvalidInput, NonFiniteOutput
from ..evaluators import QuantizedModel, objective
from .first_order import first_order_terms
from .gradient_errors import check_reached, input_errors, mean_and_error, rounded_modules
from .hutchinson import random_signs
from .likelihood import objective_has_labels, score
from .probing import ACTIVATIONS, wide
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
    summary = (
        "HAWQ-V2's term of the activations alone: weight-only formats score 0 and are not told apart; "
        "hessian_trace is the sum of both"
    )
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
        twice, reached = objective_has_labels(task), set[int]()
        for position, batch in enumerate(batches):
            with differentiated_twice(), recorder.run(batch) as run:
                calls = [call for call in run.calls if call.value is not None]
                probe = _hutchinson if twice else _gauss_newton
                estimates, found = probe(task, run, calls, generator, self.probes)
                reached |= found
                for call, estimate in zip(calls, estimates, strict=True):
                    traces[position, call.row] += estimate
                with torch.no_grad():
                    for call in calls:
                        elements[call.row] += 0 if call.value is None else call.value.numel()
                        for columns, difference in input_errors(quantized, call):
                            noise[call.row, columns] += float(difference.double().square().sum())
            if advance:
                advance(1)
        floating = {row for row, site in enumerate(space.sites) if set(site.modules) & set(modules)}
        check_reached(task, quantized, reached | {*range(len(space.sites))} - floating, batches[0])
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
) -> tuple[np.ndarray[Any, Any], set[int]]:
    """Estimates of the traces at the calls, by one backward pass a probe, and the rows that a gradient reached."""
    values = [call.value for call in calls if call.value is not None]
    found, reached = np.zeros(len(values)), set()
    for probe in range(probes):
        drawn = score(task, run.output, run.targets, "signs", generator)
        gradients = run.gradients(values, drawn.seed, again=probe + 1 < probes)
        reached |= {call.row for call, gradient in zip(calls, gradients, strict=True) if gradient is not None}
        squares = [0.0 if each is None else float(each.double().square().sum()) for each in gradients]
        found += np.array(squares) * drawn.root**2 / probes
    return found, reached


def _hutchinson(
    task: Task, run: Pass, calls: list[Call], generator: torch.Generator, probes: int
) -> tuple[np.ndarray[Any, Any], set[int]]:
    """Likewise by double differentiation."""
    values = [call.value for call in calls if call.value is not None]
    found = np.zeros(len(values))
    output = run.output.to(wide(run.output))
    loss = objective(task, output, output.detach(), run.targets)
    gradients = differentiated(loss, values, again=True)
    reached = {call.row for call, gradient in zip(calls, gradients, strict=True) if gradient is not None}
    for _ in range(probes):
        signs = [random_signs(tuple(value.shape), generator, value) for value in values]
        curved = [
            (gradient, sign)
            for gradient, sign in zip(gradients, signs, strict=True)
            if gradient is not None and gradient.requires_grad
        ]
        if not curved:
            break  # the loss is linear in the activations
        firsts, along = zip(*curved, strict=True)
        products = differentiated(firsts, values, direction=along, keep=True)
        for position, (sign, product) in enumerate(zip(signs, products, strict=True)):
            found[position] += 0.0 if product is None else float((sign * product).double().sum()) / probes
    return found, reached
