r"""GraSP: how the weights of a layer carry the gradient flow, times bits.

.. math:: I_l = \frac1B \sum_b \sum_{i \in W_l} \bigl| w_i (H_b g_b)_i \bigr|

with g_b the gradient of the loss of mini-batch b with respect to the weights of all sites, and H_b its Hessian;
``bit_weighted`` makes the table of formats from I. Wang, Zhang and Grosse 2020, GraSP, arXiv:2002.07376, section 4:
-w (H g) is half the first-order change of :math:`\lVert g \rVert^2` when a weight is removed. Their score is signed,
because weights that hinder the flow are to go; rounding moves weights to either side, so magnitudes are summed here
(ours), which also keeps parts of one layer from cancelling. Multiplied with bits it is a baseline of Dong et al. 2023,
EMQ, arXiv:2307.10554. One double backward pass a batch.

Labels: those of the data where the objective is a loss against them. ``kl``, ``relative_error`` and ``cosine`` have no
gradient at the float weights; there the loss is the distance plus (s . y), with y the outputs and s a random gradient
with the covariance that those at labels drawn from the model have (``signs`` in ``likelihood``). Gradient and Hessian
are then those of a drawn label's negative log-likelihood, up to s. ``labels`` forces one or the other.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..evaluators import QuantizedModel, objective
from ..evaluators.metrics import task_loss
from .bit_weighted import weighted_mean
from .gradient_errors import check_reached
from .layer_calls import pieces
from .likelihood import Labels, Source, check_softmax, labels_of, score
from .recording import Pass, Recorder
from .second_order import differentiated, differentiated_twice
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Task


class GraSP:
    """Weight times Hessian-gradient product, summed over each site, times bits.

    Args:
        samples: calibration samples used.
        batch: samples of one mini-batch.
        labels: ``"data"``, ``"model"``, or ``"auto"``: the data's where the objective uses them.
    """

    name = "grasp"
    summary = "zero-cost: |weight x Hessian x gradient| of each layer, times bits; double backward"
    additive = False
    gradients = 2
    source = "Wang et al. 2020 (GraSP), arXiv:2002.07376, section 4; times bits as in EMQ, arXiv:2307.10554"

    def __init__(self, samples: int = 32, batch: int = 8, labels: Labels = "auto") -> None:
        self.samples = samples
        self.batch = batch
        self.labels = labels

    def steps(self, task: Task, space: SearchSpace) -> int:
        """Mini-batches."""
        return len(pieces(task, self.samples, self.batch, self.name))

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring.

        Raises:
            InvalidInput: labels of the data are asked for and there are none, or labels of the model where the task
                has a loss of its own that is not the cross-entropy of the outputs.
            UnsupportedModel: the model cannot be differentiated twice.
            NonFiniteOutput: a product is not finite.
        """
        started = time.perf_counter()
        source = labels_of(task, self.labels, self.name)
        batches = pieces(task, self.samples, self.batch, self.name)
        recorder = Recorder(task.model, space, ())
        generator = torch.Generator().manual_seed(seed)
        draws: list[np.ndarray] = []
        reached: set[int] = set()
        for batch in batches:
            with differentiated_twice(), recorder.run(batch) as run:
                if source != "data" and not draws:
                    check_softmax(task, run.output, run.targets, self.name)
                loss = _loss(task, run, source, generator)
                gradients = differentiated(loss, run.weights, again=True)
                reached |= {row for row, gradient in enumerate(gradients) if gradient is not None}
                draws.append(_importances(run.weights, gradients))
            if advance:
                advance(1)
        check_reached(task, QuantizedModel(task.model, space, calibration, cache_bytes=0), reached, batches[0])
        values, error = weighted_mean(space, draws, self.name)
        seconds, count = time.perf_counter() - started, sum(len(batch) for batch in batches)
        names = tuple(space.names)
        return Sensitivity(self.name, values, error, names, space.formats, seconds, count, 2 * count, additive=False)


def _importances(weights: list[Tensor], gradients: list[Tensor | None]) -> np.ndarray:
    found = np.zeros(len(weights))
    flow = [(gradient.detach() * gradient).sum() for gradient in gradients if gradient is not None]
    total = sum(flow)
    if not isinstance(total, Tensor) or not total.requires_grad:
        return found  # the loss is linear in the weights
    for row, (weight, product) in enumerate(zip(weights, differentiated(total, weights), strict=True)):
        if product is not None:
            found[row] = float((weight.detach().float() * product.float()).abs().sum(dtype=torch.float64))
    return found


def _loss(task: Task, run: Pass, source: Source, generator: torch.Generator) -> Tensor:
    """The loss of a batch, at labels of the data or of the model."""
    output = run.output.float()
    if source == "data":
        assert run.targets is not None  # labels_of saw to it
        return task_loss(task, output, run.targets)
    plain, count = output.detach(), len(output)
    pushes = []
    for index in range(count):
        targets = None if run.targets is None else run.targets[index : index + 1]
        drawn = score(task, plain[index : index + 1], targets, source, generator)
        pushes.append(drawn.seed * drawn.scale)
    return objective(task, output, plain, None) + (torch.cat(pushes) * output).sum() / count
