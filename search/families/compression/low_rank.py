r"""Two thin layers in the place of one: truncated singular value decomposition in float64.

With the second moment :math:`S = E[x x^\top] = L L^\top` of the inputs (L its Cholesky factor), the best matrix of rank
r for :math:`E\|W x - \widehat W x\|^2 = \|(W - \widehat W) L\|_F^2` is the truncation of :math:`W L = U \Sigma V^\top`,

.. math:: \widehat W = (U_r \Sigma_r^{1/2}) (\Sigma_r^{1/2} V_r^\top L^{-1})

(SVD-LLM: Wang et al. 2024, arXiv:2403.07378, section 3.1). Without calibration data L is the identity. A convolution is
factored as the matrix [out, in x kernel]: r filters of its own kernel, then a 1x1 convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .settings import rounded

_DAMPING = 1e-4  # of the mean second moment, so that inputs which hardly vary do not blow up the inverse


def rank_of(share: float, outputs: int, inputs: int, step: int) -> int:
    """The rank at a share of the full one: rounded to ``step``, and never so large that no weight is saved.

    >>> rank_of(0.5, 1536, 384, 8), rank_of(0.5, 384, 384, 8), rank_of(0.5, 10, 64, 8)
    (192, 191, 5)
    """
    saving = (outputs * inputs - 1) // (outputs + inputs)
    return max(1, min(rounded(share, min(outputs, inputs), step), saving))


def saves(share: float, outputs: int, inputs: int, step: int) -> bool:
    """Whether a share, rounded, has fewer weights than the layer."""
    rank = rounded(share, min(outputs, inputs), step)
    return share < 1 and rank * (outputs + inputs) < outputs * inputs


def shape(layer: nn.Module) -> tuple[int, int]:
    """Rows and columns of the weight of a layer as a matrix."""
    rows, columns = matrix(layer).shape
    return rows, columns


def matrix(layer: nn.Module) -> Tensor:
    """The weight of a layer as a matrix [out, d]."""
    return layer.get_parameter("weight").detach().flatten(1)


def factors(weight: Tensor, second: Tensor | None, rank: int) -> tuple[Tensor, Tensor]:
    """The two factors of a matrix.

    Args:
        weight: [out, d].
        second: second moment of the inputs, float64 [d, d], or ``None`` for the plain decomposition.
        rank: at most ``min(out, d)``.

    Returns:
        Float64 [out, rank] and [rank, d].
    """
    wide = weight.double()
    lower = None
    if second is not None:
        scale = second.diagonal().mean().clamp(min=1e-12)
        lower = torch.linalg.cholesky(second + _DAMPING * scale * torch.eye(len(second), dtype=second.dtype))
        wide = wide @ lower
    left, values, right = torch.linalg.svd(wide, full_matrices=False)
    root = values[:rank].sqrt()
    first = root[:, None] * right[:rank]
    if lower is not None:
        first = torch.linalg.solve_triangular(lower, first, upper=False, left=False)
    return left[:, :rank] * root, first


def factored(layer: nn.Module, rank: int) -> nn.Sequential:
    """Two thin layers of the right shapes, with weights of zero.

    Args:
        layer: ``nn.Linear``, or ``nn.Conv2d`` without groups.
        rank: width between them.

    Returns:
        ``Sequential(in -> rank without bias, rank -> out with the bias of the layer)``.
    """
    weight = layer.get_parameter("weight")
    biased = getattr(layer, "bias", None) is not None
    pair: tuple[nn.Module, nn.Module]
    if isinstance(layer, nn.Conv2d):
        thin = nn.Conv2d(
            layer.in_channels,
            rank,
            layer.kernel_size,  # type: ignore[arg-type]  # a pair
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            bias=False,
        )
        pair = thin, nn.Conv2d(rank, layer.out_channels, 1, bias=biased)
    else:
        outputs, inputs = weight.shape
        pair = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=biased)
    made = nn.Sequential(*pair).to(weight.device, weight.dtype).train(layer.training)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
        if biased:
            pair[1].get_parameter("bias").copy_(layer.get_parameter("bias"))
    return made


def factorize(layer: nn.Module, rank: int, second: Tensor | None) -> nn.Sequential:
    """A layer as two thin ones that compute nearly the same; see the formula of this file."""
    made = factored(layer, rank)
    with torch.no_grad():
        for part, weight in zip((made[1], made[0]), factors(matrix(layer), second, rank), strict=True):
            target = part.get_parameter("weight")
            target.copy_(weight.reshape(target.shape))
    return made
