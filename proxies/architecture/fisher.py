r"""Fisher information of channels: how much the loss hangs on the outputs of the layers.

.. math:: s = \sum_l \sum_c \frac1{2N} \sum_n \Bigl( \sum_p y_{ncp} \frac{\partial \ell}{\partial y_{ncp}} \Bigr)^2

with y the output of convolution or linear layer l for sample n, channel (feature) c, position p, and l the mean loss of
a batch. Theis et al. 2018, arXiv:1801.05787, section 2; for whole networks Turner et al. 2020, BlockSwap,
arXiv:1906.04113, equation 2, and Abdelfattah et al. 2021, arXiv:2101.08134.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from .passes import as_initialized, derivatives, finite, loss_of

if TYPE_CHECKING:
    from ...task import Batch
    from .proxy import Loss


class Fisher:
    """Squared sensitivity of the channels of every layer; one backward pass to the activations."""

    name = "fisher"
    summary = "Fisher information of all layers' output channels; one backward pass"
    labels = True
    gradients = 1
    source = "Turner et al. 2020 (BlockSwap), arXiv:1906.04113, equation 2; arXiv:2101.08134"

    def score(self, module: nn.Module, batch: Batch, loss: Loss | None, seed: int) -> float:
        """See the module docstring; the seed is not used.

        Raises:
            InvalidInput: the batch has no targets.
            UnsupportedModel: the network does not accept the batch, or cannot be differentiated.
        """
        outputs: list[tuple[Tensor, bool]] = []

        def leave(layer: nn.Module, args: Any, output: Tensor) -> Tensor:
            outputs.append((output, isinstance(layer, _ConvNd)))
            return output.clone()  # what follows may work in place

        layers = [each for each in module.modules() if isinstance(each, (_ConvNd, nn.Linear))]
        handles = [layer.register_forward_hook(leave) for layer in layers]
        try:
            with as_initialized(module):
                value = loss_of(module, batch, loss)
                gradients = derivatives(value, [output for output, _ in outputs])
        finally:
            for handle in handles:
                handle.remove()
        total = 0.0
        for (output, convolved), gradient in zip(outputs, gradients, strict=True):
            product = (output.detach() * gradient).double()
            if not convolved:
                product = product.movedim(-1, min(1, product.ndim - 1))
            by_channel = product.reshape(len(product), product.shape[1], -1).sum(2)
            total += 0.5 * float(by_channel.square().mean(0).sum())
        return finite(total, self.name)
