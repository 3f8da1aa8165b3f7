r"""NASWOT: whether an untrained network tells inputs apart.

.. math:: s = \log | \det K |, \qquad K_{ij} = N_A - d_H(c_i, c_j)

with :math:`c_i \in \{0, 1\}^{N_A}` the code of sample i, one bit for each of the N_A rectified units, which says
whether the unit is on, and d_H the Hamming distance. Mellor et al. 2021, Neural Architecture Search without Training,
arXiv:2006.04647, equation 2 and section 3. Two samples with the same code make K singular: minus infinity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import UnsupportedModel
from .activation_codes import ActivationCodes, agreements, no_rectifier
from .passes import as_initialized, outputs_of

if TYPE_CHECKING:
    from torch import nn

    from ...task import Batch
    from .proxy import Loss


class NWOT:
    """Log-determinant of the kernel of activation codes; one forward pass, no labels."""

    name = "nwot"
    summary = "how differently the samples of a batch switch the rectified units; one forward pass"
    labels = False
    gradients = 0
    source = "Mellor et al. 2021 (NASWOT), arXiv:2006.04647, equation 2"

    def score(self, module: nn.Module, batch: Batch, loss: Loss | None, seed: int) -> float:
        """See the module docstring; neither loss nor seed is used.

        Raises:
            UnsupportedModel: the network has no rectified units, or does not accept the batch.
        """
        kernel = torch.zeros(len(batch), len(batch), dtype=torch.float64)

        def seen(code: Tensor) -> None:
            kernel.add_(agreements(code).cpu())

        with as_initialized(module), torch.no_grad(), ActivationCodes(seen) as codes:
            outputs_of(module, batch)
        if not codes.calls:
            raise UnsupportedModel(no_rectifier(self.name))
        return float(torch.linalg.slogdet(kernel).logabsdet)
