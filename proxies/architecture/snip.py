r"""SNIP: how much the loss hangs on the weights.

.. math:: s = \sum_i \Bigl| w_i \frac{\partial \ell}{\partial w_i} \Bigr|

over all weights of convolutions and matrix products, with the loss l of one batch. Lee, Ajanthan and Torr 2019, SNIP,
arXiv:1810.02340, section 4; summed over a network by Abdelfattah et al. 2021, arXiv:2101.08134.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .passes import finite, weight_gradients

if TYPE_CHECKING:
    from torch import nn

    from ...task import Batch
    from .proxy import Loss


class SNIP:
    """Sum of |weight x gradient|; one backward pass."""

    name = "snip"
    summary = "sum of |weight x gradient| over all weights; one backward pass"
    labels = True
    gradients = 1
    source = "Lee et al. 2019 (SNIP), arXiv:1810.02340, section 4; arXiv:2101.08134"

    def score(self, module: nn.Module, batch: Batch, loss: Loss | None, seed: int) -> float:
        """See the module docstring; the seed is not used.

        Raises:
            InvalidInput: the batch has no targets.
            UnsupportedModel: the network does not accept the batch, or cannot be differentiated.
        """
        pairs = weight_gradients(module, batch, loss)
        return finite(sum(float((weight * gradient).abs().double().sum()) for weight, gradient in pairs), self.name)
