r"""Jacobian covariance: whether inputs are mapped by linear maps that differ.

.. math:: s = - \sum_{i=1}^{N} \Bigl[ \log(v_i + k) + \frac{1}{v_i + k} \Bigr], \qquad k = 10^{-5}

with v_i the eigenvalues of the correlation matrix (rows: samples) of the Jacobians
:math:`J_n = \partial \sum_j y_{nj} / \partial x_n`. Mellor et al. 2020, first version of arXiv:2006.04647, equation 6;
``jacob_cov`` of Abdelfattah et al. 2021, arXiv:2101.08134. The largest score is -N, of uncorrelated Jacobians. A sample
whose Jacobian is constant has no correlation: minus infinity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import UnsupportedModel
from ...evaluators.float_run import on_device
from ...task import Batch
from .passes import as_initialized, derivatives, outputs_of

if TYPE_CHECKING:
    from torch import nn

    from .proxy import Loss

_SMALL = 1e-5


class JacobianCovariance:
    """How uncorrelated the Jacobians of the samples are; one backward pass to the inputs, no labels."""

    name = "jacov"
    summary = "how uncorrelated the input Jacobians of the samples are; one backward pass"
    labels = False
    gradients = 1
    source = "Mellor et al. 2020 (version 1), arXiv:2006.04647, equation 6"

    def score(self, module: nn.Module, batch: Batch, loss: Loss | None, seed: int) -> float:
        """See the module docstring; neither loss nor seed is used.

        Raises:
            UnsupportedModel: the inputs are no floating-point numbers, or the network does not accept them.
        """
        jacobian = _input_gradients(module, batch).double()
        centred = jacobian - jacobian.mean(1, keepdim=True)
        norms = centred.norm(dim=1, keepdim=True)
        if bool((norms == 0).any()):
            return -float("inf")
        rows = centred / norms
        values = torch.linalg.eigvalsh(rows @ rows.T).clamp_min(0) + _SMALL
        return -float((values.log() + 1 / values).sum())


def _input_gradients(module: nn.Module, batch: Batch) -> Tensor:
    """Gradient of the sum of all outputs with respect to the inputs: [samples, elements]."""
    batch = on_device(batch, module)
    inputs = {
        name: tensor.detach().clone().requires_grad_(True) if tensor.is_floating_point() else tensor
        for name, tensor in batch.tensors.items()
    }
    wanted = [tensor for tensor in inputs.values() if tensor.requires_grad]
    if not wanted:
        raise UnsupportedModel("proxy jacov differentiates by the inputs, and these are whole numbers; choose synflow")
    with as_initialized(module):
        output = outputs_of(module, Batch(inputs if isinstance(batch.inputs, dict) else tuple(inputs.values())))
        gradients = derivatives(output.sum(), wanted)
    return torch.cat([each.flatten(1) for each in gradients], dim=1)
