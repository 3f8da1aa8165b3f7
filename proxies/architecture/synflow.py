r"""SynFlow: how much flows through a network whose signs are removed.

.. math:: s = \log \sum_i |\theta_i| \, \frac{\partial R}{\partial |\theta_i|}, \qquad R = \sum_j y_j(|\theta|; 1)

over all weights of convolutions and matrix products, normalizations skipped. Tanaka et al. 2020, SynFlow,
arXiv:2006.05467, equation 2; summed over a network by Abdelfattah et al. 2021, arXiv:2101.08134. The sum grows
exponentially with the depth, hence the logarithm, which keeps the order. No data are used.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ...evaluators import in_eval
from ..synflow import flow
from .passes import finite, weights_of

if TYPE_CHECKING:
    from torch import nn

    from ...task import Batch
    from .proxy import Loss


class SynFlow:
    """Logarithm of the synaptic flow of all weights; one backward pass of one sample of ones in float64."""

    name = "synflow"
    summary = "logarithm of the synaptic flow through all weights; one backward pass of one sample, no data"
    labels = False
    gradients = 1
    source = "Tanaka et al. 2020 (SynFlow), arXiv:2006.05467, equation 2; arXiv:2101.08134"

    def score(self, module: nn.Module, batch: Batch, loss: Loss | None, seed: int) -> float:
        """See the module docstring; neither loss nor seed is used, of the batch only the shape.

        Raises:
            UnsupportedModel: the network does not run in float64, or cannot be differentiated.
            NonFiniteOutput: the flow overflows.
        """
        wanted = {id(weight) for weight in weights_of(module)}
        named = {name: each for name, each in module.named_parameters() if id(each) in wanted}
        with in_eval(module):
            flows = flow(module, batch, list(named))
        pairs = zip(named.values(), flows, strict=True)
        total = sum(float((weight.detach().double().abs() * gradient).abs().sum()) for weight, gradient in pairs)
        return finite(math.log(total), self.name) if total else -math.inf
