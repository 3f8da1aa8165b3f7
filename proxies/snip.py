r"""SNIP: connection sensitivity, times bits.

.. math:: I_l = \frac1N \sum_n \sum_{i \in W_l} \Bigl| w_i \frac{\partial \ell_n}{\partial w_i} \Bigr|

with l_n the loss of sample n; ``bit_weighted`` makes the table of formats from I. Lee, Ajanthan and Torr 2019, SNIP,
arXiv:1810.02340, section 4; summed over a layer and multiplied with its bits it is a baseline of Dong et al. 2023, EMQ,
arXiv:2307.10554. SNIP takes the gradient of one batch, whose size then enters the score, because opposite gradients
cancel; here every sample counts by itself.

Labels: those of the data where the objective is a loss against them. ``kl``, ``relative_error`` and ``cosine`` have no
gradient at the float weights; there it is a random one, with the covariance that the gradients at labels drawn from the
model have (``signs`` in ``likelihood``). ``labels`` forces one or the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .drawn_importance import DrawnImportance
from .likelihood import Source, score

if TYPE_CHECKING:
    from ..task import Task
    from .recording import Pass


class SNIP(DrawnImportance):
    """Weight times gradient, summed over each site, times bits; arguments as for ``DrawnImportance``."""

    name = "snip"
    summary = "zero-cost: |weight x gradient| of each layer, times bits"
    source = "Lee et al. 2019 (SNIP), arXiv:1810.02340, section 4; times bits as in EMQ, arXiv:2307.10554"

    def importance(self, task: Task, run: Pass, source: Source, generator: torch.Generator) -> dict[int, float]:
        """See the module docstring.

        Args:
            task: model and objective.
            run: the pass of one sample.
            source: where the gradient at the outputs comes from.
            generator: of its randomness.
        """
        drawn = score(task, run.output, run.targets, source, generator)
        gradients = run.gradients(run.weights, drawn.seed)
        return {
            row: float((weight.detach().float() * gradient.float()).abs().sum(dtype=torch.float64)) * drawn.scale
            for row, (weight, gradient) in enumerate(zip(run.weights, gradients, strict=True))
            if gradient is not None
        }
