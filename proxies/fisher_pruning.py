r"""Fisher pruning: what removing a channel of a layer's output would cost, times bits.

.. math::
    I_l = \sum_c \frac1{2N} \sum_n \Bigl( \sum_{p} y_{ncp} \frac{\partial \ell_n}{\partial y_{ncp}} \Bigr)^2

with y the output of site l for sample n, channel (feature) c, position (token) p, and l_n the loss of the sample;
``bit_weighted`` makes the table of formats from I. Theis et al. 2018, arXiv:1801.05787, section 2; the zero-cost score
``fisher`` of Turner et al. 2020, BlockSwap, arXiv:1906.04113 and of Abdelfattah et al. 2021, arXiv:2101.08134; times
bits a baseline of Dong et al. 2023, EMQ, arXiv:2307.10554. Samples run one at a time, so that l_n is the sample's own
loss and not a part of a batch's mean.

Labels: those of the data where the objective is a loss against them. ``kl``, ``relative_error`` and ``cosine`` have no
gradient at the float weights; there it is a random one, with the covariance that the gradients at labels drawn from the
model have (``signs`` in ``likelihood``). ``labels`` forces one or the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .drawn_importance import DrawnImportance
from .likelihood import Source, score

if TYPE_CHECKING:
    from ..task import Task
    from .recording import Pass

_SPREAD = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class FisherPruning(DrawnImportance):
    """Squared sensitivity of the output channels of each site, times bits; arguments as for ``DrawnImportance``."""

    name = "fisher_pruning"
    summary = "zero-cost: Fisher information of each layer's output channels, times bits"
    source = "Theis et al. 2018, arXiv:1801.05787, section 2; times bits as in EMQ, arXiv:2307.10554"
    _outputs = True

    def importance(self, task: Task, run: Pass, source: Source, generator: torch.Generator) -> dict[int, float]:
        """See the module docstring.

        Args:
            task: model and objective.
            run: the pass of one sample.
            source: where the gradient at the outputs comes from.
            generator: of its randomness.
        """
        drawn = score(task, run.output, run.targets, source, generator)
        outputs = [(call.row, call.module, call.output) for call in run.calls if call.output is not None]
        gradients = run.gradients([output for _, _, output in outputs], drawn.seed)
        channels: dict[tuple[int, str], Tensor] = {}
        for (row, module, output), gradient in zip(outputs, gradients, strict=True):
            if gradient is not None:
                summed = _by_channel(output, gradient, task.model.get_submodule(module)) * drawn.scale
                channels[row, module] = channels.get((row, module), 0) + summed
        found: dict[int, float] = {}
        for (row, _), summed in channels.items():
            found[row] = found.get(row, 0.0) + 0.5 * float(summed.square().sum())
        return found


def _by_channel(output: Tensor, gradient: Tensor, module: nn.Module) -> Tensor:
    """Output times gradient, summed over all but the channels: float64 [channels]."""
    product = (output.detach().float() * gradient.float()).double()
    axis = product.ndim - 1 - (len(module.kernel_size) if isinstance(module, _SPREAD) else 0)
    return product.movedim(axis, -1).reshape(-1, product.shape[axis]).sum(0)
