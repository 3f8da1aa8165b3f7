r"""GPTQ: round one column after the other, and let the columns to come take back the error.

With :math:`H = 2 X X^\top + \lambda I` (dampened) and U the upper Cholesky factor of :math:`H^{-1}`, for each column i

.. math::
    \hat w_i = \operatorname{nearest}(w_i), \qquad e_i = \frac{w_i - \hat w_i}{U_{ii}}, \qquad
    w_j \leftarrow w_j - e_i\, U_{ij} \quad (j > i)

Frantar et al. 2023, arXiv:2210.17323, algorithm 1 (the factor 2 cancels). Scales stay as they were chosen before. All
channels of all blocks are treated at once; columns in groups, whose effect on the rest is one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..quantizers import QuantizedWeight, nearest
from .problem import LayerProblem


@dataclass(frozen=True, slots=True)
class Gptq:
    """GPTQ, for every format that has scales.

    Attributes:
        damping: lambda, as a fraction of the mean of the diagonal of H.
        columns: how many columns are rounded before the rest is updated.
        act_order: whether columns are rounded in the order of decreasing diagonal of H, not from left to right. Scales
            are fixed beforehand and codes stay in their places, so that it costs a runtime nothing.
    """

    damping: float = 0.01
    columns: int = 128
    act_order: bool = True

    def __call__(self, problems: Sequence[LayerProblem]) -> list[QuantizedWeight]:
        """Round the weight of a layer in every format.

        Args:
            problems: one a format, all with the same moments.

        Returns:
            The quantized weights. No channel has a larger output error than with rounding to nearest.
        """
        matrix = problems[0].moment.matrix
        order = torch.arange(matrix.shape[-1], device=matrix.device).expand(matrix.shape[:2])
        if self.act_order:
            order = matrix.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
        root = _inverse_root(_permuted(matrix, order), self.damping)
        return [problem.quantized(self._elements(problem, root, order)) for problem in problems]

    def _elements(self, problem: LayerProblem, root: Tensor, order: Tensor) -> Tensor:
        """Elements [blocks, channels, elements]; ``root`` is U with the columns in ``order``."""
        along = order[:, :, None].expand(-1, -1, problem.blocks.shape[1])
        # columns of the matrix become rows of memory
        weight = problem.blocks.mT.gather(1, along)
        factor = problem.factor.mT.gather(1, along)
        zero = problem.zero_point.mT.gather(1, along) if problem.zero_point.ndim else None
        found = torch.empty_like(weight)
        for start in range(0, weight.shape[1], self.columns):
            stop = min(start + self.columns, weight.shape[1])
            errors = torch.empty_like(weight[:, start:stop])
            for column in range(start, stop):
                scale, ratio = factor[:, column], weight[:, column] / factor[:, column]
                element = nearest(ratio, problem.target, 0.0 if zero is None else zero[:, column])
                error = (weight[:, column] - element * scale) / root[:, column, column, None]
                weight[:, column + 1 : stop] -= root[:, column, column + 1 : stop, None] * error[:, None]
                found[:, column], errors[:, column - start] = element, error
            weight[:, stop:] -= torch.bmm(root[:, start:stop, stop:].mT, errors)
        return torch.empty_like(found).scatter_(1, along, found).mT


def _permuted(matrix: Tensor, order: Tensor) -> Tensor:
    """Rows and columns of [blocks, elements, elements] in another order."""
    index = order[:, :, None].expand_as(matrix)
    return matrix.gather(1, index).gather(2, index.mT)


def _inverse_root(matrix: Tensor, damping: float) -> Tensor:
    """U with U^T U the inverse of the dampened matrix: float32 [blocks, elements, elements], upper triangular.

    Elements of the input that are always zero cost nothing: their diagonal is set to 1, so that they are rounded to
    nearest and move no other column.
    """
    matrix = matrix.double()
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    diagonal += torch.where(diagonal == 0, 1.0, damping * diagonal.mean(1, keepdim=True))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
    root: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return root.float()
