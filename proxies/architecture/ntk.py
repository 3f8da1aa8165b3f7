r"""Condition number of the neural tangent kernel: how evenly a network can be trained (TE-NAS, first half).

.. math:: s = - \log \frac{\lambda_{\max}}{\lambda_{\min}}, \qquad
    \Theta_{ij} = \Bigl\langle \frac{\partial \sum_k y_{ik}}{\partial W},
        \frac{\partial \sum_k y_{jk}}{\partial W} \Bigr\rangle

with the eigenvalues of :math:`\Theta` over the samples of a batch, W all weights of convolutions and matrix products.
Chen, Gong and Wang 2021, TE-NAS, arXiv:2102.11535, section 3.1; the sum over the outputs is that of the authors' code.
The logarithm keeps the order. A singular kernel is minus infinity. One backward pass a sample, all through the batch
statistics of normalizations.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ...errors import InvalidInput
from .passes import as_initialized, derivatives, outputs_of, weights_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...task import Batch
    from .proxy import Loss


class NTKCondition:
    """Negative logarithm of the condition number of the neural tangent kernel; no labels.

    Args:
        samples: of the batch that are used, at most; each is one backward pass.
    """

    name = "ntk"
    summary = "condition number of the neural tangent kernel; one backward pass a sample"
    labels = False
    gradients = 1
    source = "Chen et al. 2021 (TE-NAS), arXiv:2102.11535, section 3.1"

    def __init__(self, samples: int = 16) -> None:
        self.samples = samples

    def score(self, module: nn.Module, batch: Batch, loss: Loss | None, seed: int) -> float:
        """See the module docstring; neither loss nor seed is used.

        Raises:
            InvalidInput: there are fewer than two samples.
            UnsupportedModel: the network does not accept the batch, or cannot be differentiated.
        """
        if min(self.samples, len(batch)) < 2:
            raise InvalidInput(f"proxy {self.name} compares samples; give a batch of two or more, got {len(batch)}")
        values = torch.linalg.eigvalsh(_kernel(module, batch.piece(0, self.samples)))
        smallest, largest = float(values[0]), float(values[-1])
        # below the rounding of float32 gradients an eigenvalue is zero
        if not smallest > largest * torch.finfo(torch.float32).eps:
            return -math.inf
        return -math.log(largest / smallest)


def _kernel(module: nn.Module, batch: Batch) -> Tensor:
    """The kernel: float64 [samples, samples]."""
    with as_initialized(module):
        weights = weights_of(module)
        totals = outputs_of(module, batch).flatten(1).sum(1)
        last = len(totals) - 1
        rows = [
            torch.cat([each.flatten() for each in derivatives(total, weights, keep=index < last)])
            for index, total in enumerate(totals)
        ]
    jacobian = torch.stack(rows).double()
    return (jacobian @ jacobian.T).cpu()
