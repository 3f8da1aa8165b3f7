r"""ZiCo: gradients that are large and agree over batches.

.. math::
    s = \sum_l \log \sum_{w \in W_l}
        \frac{E_b[\,|\partial \ell_b / \partial w|\,]}{\sqrt{\mathrm{Var}_b(|\partial \ell_b / \partial w|)}}

over all weights of convolutions and matrix products, with the losses of at least two batches b. Li et al. 2023, ZiCo,
arXiv:2301.11300, equation 15. As in the authors' code, weights whose gradients do not vary do not count, nor do layers
without others; and :math:`\sqrt{\mathrm{Var}}` is over all batches (not one less). The authors' code takes the variance
of the signed gradients; here it is the paper's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ...errors import InvalidInput
from .passes import finite, weight_gradients

if TYPE_CHECKING:
    from torch import nn

    from ...task import Batch
    from .proxy import Loss


class ZiCo:
    """Inverse coefficient of variation of the gradients; one backward pass of every piece of the batch.

    Args:
        pieces: the batch is cut into so many equal batches.
    """

    name = "zico"
    summary = "mean over spread of the gradients of two half batches; one backward pass each"
    labels = True
    gradients = 1
    source = "Li et al. 2023 (ZiCo), arXiv:2301.11300, equation 15"

    def __init__(self, pieces: int = 2) -> None:
        self.pieces = pieces

    def score(self, module: nn.Module, batch: Batch, loss: Loss | None, seed: int) -> float:
        """See the module docstring; the seed is not used.

        Raises:
            InvalidInput: the batch has no targets, or fewer than two samples a piece.
            UnsupportedModel: the network does not accept the batch, or cannot be differentiated.
        """
        size = len(batch) // self.pieces
        if self.pieces < 2 or size < 2:
            raise InvalidInput(
                f"proxy {self.name} compares two or more batches of two or more samples, got {len(batch)} samples in "
                f"{self.pieces} pieces; give a larger batch"
            )
        parts = [batch.piece(index * size, (index + 1) * size) for index in range(self.pieces)]
        drawn = [[gradient.abs() for _, gradient in weight_gradients(module, part, loss)] for part in parts]
        total = 0.0
        for gradients in zip(*drawn, strict=True):
            stacked = torch.stack(gradients).double()
            spread = stacked.std(0, correction=0)
            varied = spread > 0
            if bool(varied.any()):
                total += math.log(float((stacked.mean(0)[varied] / spread[varied]).sum()))
        return finite(total, self.name)
