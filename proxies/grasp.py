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

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..evaluators import objective
from ..evaluators.metrics import task_loss
from .drawn_importance import DrawnImportance
from .layer_calls import pieces
from .likelihood import Labels, Source, score
from .recording import Pass
from .second_order import differentiated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..task import Batch, Task


class GraSP(DrawnImportance):
    """Weight times Hessian-gradient product, summed over each site, times bits.

    Args:
        samples: calibration samples used.
        batch: samples of one mini-batch.
        labels: ``"data"``, ``"model"``, or ``"auto"``: the data's where the objective uses them.
    """

    name = "grasp"
    summary = "zero-cost: |weight x Hessian x gradient| of each layer, times bits; double backward"
    gradients = 2
    source = "Wang et al. 2020 (GraSP), arXiv:2002.07376, section 4; times bits as in EMQ, arXiv:2307.10554"

    def __init__(self, samples: int = 32, batch: int = 8, labels: Labels = "auto") -> None:
        super().__init__(samples, labels)
        self.batch = batch

    def batches(self, task: Task) -> Sequence[Batch]:
        """Mini-batches.

        Args:
            task: the calibration data.
        """
        return pieces(task, self.samples, self.batch, self.name)

    def importance(self, task: Task, run: Pass, source: Source, generator: torch.Generator) -> dict[int, float]:
        """See the module docstring.

        Args:
            task: model and objective.
            run: the pass of one mini-batch.
            source: where the gradient at the outputs comes from.
            generator: of its randomness.
        """
        loss = _loss(task, run, source, generator)
        return _importances(run.weights, differentiated(loss, run.weights, again=True))


def _importances(weights: list[Tensor], gradients: list[Tensor | None]) -> dict[int, float]:
    found = {row: 0.0 for row, gradient in enumerate(gradients) if gradient is not None}
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
