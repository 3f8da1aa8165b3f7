r"""GraSP: how much the weights carry the flow of gradients.

.. math:: s = - \sum_i w_i (H g)_i

over all weights of convolutions and matrix products, with gradient g and Hessian H of the loss of one batch. Wang,
Zhang and Grosse 2020, GraSP, arXiv:2002.07376, equation 8; summed over a network by Abdelfattah et al. 2021,
arXiv:2101.08134. Signed, unlike the bit proxy of that name, which sums magnitudes because rounding moves weights to
either side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..second_order import differentiated_twice
from .passes import as_initialized, derivatives, finite, loss_of, weights_of

if TYPE_CHECKING:
    from torch import nn

    from ...task import Batch
    from .proxy import Loss


class GraSP:
    """Negative sum of weight x Hessian x gradient; one double backward pass."""

    name = "grasp"
    summary = "negative sum of weight x Hessian x gradient; double backward"
    labels = True
    gradients = 2
    source = "Wang et al. 2020 (GraSP), arXiv:2002.07376, equation 8; arXiv:2101.08134"

    def score(self, module: nn.Module, batch: Batch, loss: Loss | None, seed: int) -> float:
        """See the module docstring; the seed is not used.

        Raises:
            InvalidInput: the batch has no targets.
            UnsupportedModel: the network does not accept the batch, or cannot be differentiated twice.
        """
        with as_initialized(module), differentiated_twice():
            weights = weights_of(module)
            gradients = derivatives(loss_of(module, batch, loss), weights, again=True)
            half = sum(((each.detach() * each).sum() for each in gradients), torch.zeros(()))
            products = derivatives(half, weights)
        pairs = zip(weights, products, strict=True)
        return finite(-sum(float((weight.detach() * each).double().sum()) for weight, each in pairs), self.name)
