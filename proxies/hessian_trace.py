r"""Hessian trace: HAWQ-V2's Omega for every site and format.

.. math::
    \Omega[l, f] = \frac{\operatorname{tr}(H_l)}{n_l} \lVert Q_f(W_l) - W_l \rVert_2^2
                 + \frac{\operatorname{tr}(H_{a_l})}{m_l} \lVert Q_f(a_l) - a_l \rVert_2^2

with H_l the Hessian of the task's objective with respect to the n_l weights of site l, and H_{a_l} that with respect
to the m_l elements of the activation that enters it (per sample). Twice the second-order Taylor term for a
perturbation in a random direction. Dong et al. 2020, HAWQ-V2, arXiv:1911.03852, eq. 7 and section 3.4.

Traces come from one of two estimators, both unbiased for the Hessian's trace:

- Hutchinson (1990), when the gradient does not vanish (``loss``, ``accuracy``, ``perplexity``): v with random signs,
  :math:`E[v_l^\top (H v)_l] = \operatorname{tr}(H_l)`; one Hessian-vector product serves all sites, because the
  cross terms between sites have mean zero.
- Gauss-Newton root, when the objective is the distance to the float model's own outputs (``kl``,
  ``relative_error``): there the Hessian equals the Gauss-Newton matrix :math:`J^\top B B^\top J`, and
  :math:`E\lVert (J^\top B u)_l \rVert^2 = \operatorname{tr}(H_l)` for u of random signs (Schraudolph 2002). One
  plain backward pass per probe, no second differentiation, and no cross terms between sites.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import NonFiniteOutput
from .perturbation import activation_errors, weight_errors
from .sensitivity import Advance, Sensitivity
from .trace_estimators import Variables, gauss_newton_probes, hutchinson_probes

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Batch, Task


class HessianTrace:
    """Omega of HAWQ-V2, for weights and, where formats quantize them, activations.

    Args:
        samples: calibration samples used.
        probes: random probes per sub-batch at most.
        tolerance: stop when the median over sites of the trace's relative standard error is below this.
        batch: samples per sub-batch; each (sub-batch, probe) is one independent estimate.
    """

    name = "hessian_trace"
    summary = "HAWQ-V2's Omega: mean Hessian trace x squared quantization error"
    additive = True
    gradients = 2
    source = "Dong et al. 2020 (HAWQ-V2), arXiv:1911.03852, eq. 7 and section 3.4"

    def __init__(self, samples: int = 32, probes: int = 16, tolerance: float = 0.1, batch: int = 8) -> None:
        self.samples = samples
        self.probes = probes
        self.tolerance = tolerance
        self.batch = batch

    def steps(self, task: Task, space: SearchSpace) -> int:
        """Sub-batches x probes."""
        return len(self._batches(task)) * self.probes

    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring.

        Raises:
            NonFiniteOutput: the objective or a trace is not finite.
        """
        started = time.perf_counter()
        batches = self._batches(task)
        variables = Variables(task.model, space)
        generator = torch.Generator().manual_seed(seed)
        vanishing = task.quality in ("kl", "relative_error")
        probes = gauss_newton_probes if vanishing else hutchinson_probes
        estimates: list[np.ndarray] = []  # each [2, sites]: trace over weights, trace over activations (per sample)
        rounds = 0
        for rounds in range(1, self.probes + 1):
            for batch in batches:
                estimates.append(probes(task, batch, variables, generator))
                if advance:
                    advance(1)
            if rounds >= 2 and self._settled(estimates):
                break
        stack = np.stack(estimates)
        if not np.isfinite(stack).all():
            raise NonFiniteOutput("the Hessian trace is NaN or infinite; check the loss and the calibration data")
        mean, error = stack.mean(0), stack.std(0, ddof=1) / np.sqrt(len(stack))
        weights, activations = self._omega(task, space, calibration, batches)
        passes = rounds * sum(len(batch) for batch in batches)
        return Sensitivity(
            self.name,
            mean[0][:, None] * weights + mean[1][:, None] * activations,
            np.hypot(error[0][:, None] * weights, error[1][:, None] * activations),
            tuple(space.names),
            space.formats,
            time.perf_counter() - started,
            forward_passes=passes,
            backward_passes=passes if vanishing else 2 * passes,
        )

    def _settled(self, estimates: list[np.ndarray]) -> bool:
        """Whether the median relative standard error over the sites is small enough."""
        weights = np.stack(estimates)[:, 0]
        error = weights.std(0, ddof=1) / np.sqrt(len(weights))
        return bool(np.median(error / np.maximum(np.abs(weights.mean(0)), 1e-30)) < self.tolerance)

    def _batches(self, task: Task) -> list[Batch]:
        return list(_sub_batches(task, self.samples, self.batch))

    @staticmethod
    def _omega(
        task: Task, space: SearchSpace, calibration: Calibration, batches: list[Batch]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Squared errors divided by the number of elements: what the traces are multiplied with."""
        elements = np.array([site.elements for site in space.sites], dtype=np.float64)
        activation, counts = activation_errors(task, space, calibration, batches)
        return (
            weight_errors(task, space, calibration) / elements[:, None],
            activation / np.maximum(counts, 1)[:, None],
        )


def _sub_batches(task: Task, samples: int, size: int) -> Iterator[Batch]:
    """Calibration batches cut into pieces of ``size`` samples, up to ``samples`` in all."""
    left = samples
    for batch in task.calibration:
        for start in range(0, len(batch), size):
            if left <= 0:
                return
            piece = batch.piece(start, start + min(size, left))
            left -= len(piece)
            yield piece
