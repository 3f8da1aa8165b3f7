r"""What the readers of removed channels can make up from those that stay: least squares in closed form.

A layer :math:`y = W x + b` loses the inputs R and keeps K. With the covariance C of its inputs, the new weights

.. math::
    W' = W_K + W_R C_{RK} (C_{KK} + \lambda I)^{-1}, \qquad b' = b + W m - W' m_K

minimise :math:`E\|W x + b - W' x_K - b'\|^2 + \lambda \|W' - W_K\|^2`; without a bias, C is the uncentred second
moment and b' does not exist. This is the reconstruction of He et al. 2017 (arXiv:1707.06168, eq. 3) with the channels
given, and needs no pass through the network: the moments of the original inputs are enough.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .moments import Moments

_DAMPING = 1e-2  # of the mean variance of the inputs


def made_up(weight: Tensor, bias: Tensor | None, moments: Moments, kept: Tensor) -> tuple[Tensor, Tensor | None]:
    """The weights and bias of a layer that keeps some of its inputs.

    Args:
        weight: float [out, d].
        bias: float [out], or ``None``.
        moments: of the d inputs.
        kept: positions that stay, int64 [k], not all.

    Returns:
        Float64 [out, k] and [out].
    """
    wide = weight.double()
    gone = torch.ones(wide.shape[1], dtype=torch.bool)
    gone[kept] = False
    spread = moments.second if bias is None else moments.covariance
    inner = spread[kept][:, kept]
    damped = inner + _DAMPING * inner.diagonal().mean().clamp(min=1e-12) * torch.eye(len(kept), dtype=inner.dtype)
    change = torch.linalg.solve(damped, spread[kept][:, gone] @ wide[:, gone].T).T
    narrow = wide[:, kept] + change
    if bias is None:
        return narrow, None
    return narrow, bias.double() + wide @ moments.mean - narrow @ moments.mean[kept]


def set_matrix(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """Write a weight matrix [out, d] and a bias into a layer of that size."""
    with torch.no_grad():
        target = layer.get_parameter("weight")
        target.copy_(weight.reshape(target.shape))
        if bias is not None:
            layer.get_parameter("bias").copy_(bias)
