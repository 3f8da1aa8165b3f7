r"""Gradient norm.

.. math:: s = \sum_l \Bigl\lVert \frac{\partial \ell}{\partial W_l} \Bigr\rVert_2

over all weights of convolutions and matrix products, with the loss l of one batch. Abdelfattah et al. 2021,
arXiv:2101.08134, section 3.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .passes import finite, weight_gradients

if TYPE_CHECKING:
    from torch import nn

    from ...task import Batch
    from .proxy import Loss


class GradNorm:
    """Sum of the Euclidean norms of the layers' gradients; one backward pass."""

    name = "grad_norm"
    summary = "sum of the norms of the weights' gradients; one backward pass"
    labels = True
    gradients = 1
    source = "Abdelfattah et al. 2021, arXiv:2101.08134, section 3.1"

    def score(self, module: nn.Module, batch: Batch, loss: Loss | None, seed: int) -> float:
        """See the module docstring; the seed is not used.

        Raises:
            InvalidInput: the batch has no targets.
            UnsupportedModel: the network does not accept the batch, or cannot be differentiated.
        """
        pairs = weight_gradients(module, batch, loss)
        return finite(sum(float(gradient.double().norm()) for _, gradient in pairs), self.name)
