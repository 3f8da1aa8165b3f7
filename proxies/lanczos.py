r"""Lanczos iteration with full reorthogonalization: the largest eigenvalue of a symmetric matrix from products with it.

.. math:: H Q_k = Q_k T_k + \beta_k q_{k+1} e_k^\top

with orthonormal columns q of Q_k (shape [n, k]) and T_k tridiagonal (diagonal alpha, off-diagonal beta). Eigenvalues of
T_k approach the extreme ones of H from inside; for a pair (theta, s) of T_k the residual
:math:`\lVert H Q_k s - \theta Q_k s \rVert = \beta_k |s_k|` bounds the distance of theta to some eigenvalue of H (Paige
1972; Parlett 1998, The Symmetric Eigenvalue Problem, section 13.2). In finite precision the q lose orthogonality and
eigenvalues appear twice; each new q is therefore orthogonalized against all others, twice (Parlett, section 6.9).

The error of theta is much smaller than its residual r: at most r^2 / gap, with the gap to the next eigenvalue (Parlett,
section 11.7). The gap of T_k stands in for the unknown one, which makes that an estimate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

_TRUSTED = 4  # before, a start vector nearly orthogonal to the eigenvector shows the next one instead


@dataclass
class Lanczos:
    """One iteration, fed with matrix-vector products.

    Attributes:
        basis: rows q_1 to q_k, and room for more [iterations + 1, n].
        alpha: diagonal of T_k.
        beta: what is below it; the last entry is the norm of what is left of the next vector.
    """

    basis: Tensor
    alpha: list[float] = field(default_factory=list)
    beta: list[float] = field(default_factory=list)

    @staticmethod
    def start(vector: Tensor, iterations: int) -> Lanczos:
        """An iteration that begins with a vector [n] and has room for so many products (at most n are useful)."""
        rows = min(iterations, len(vector)) + 1
        basis = torch.zeros(rows, len(vector), dtype=vector.dtype, device=vector.device)
        basis[0] = vector / vector.norm()
        return Lanczos(basis)

    @property
    def vector(self) -> Tensor:
        """The vector that the matrix is to be multiplied with next [n]."""
        return self.basis[len(self.alpha)]

    @property
    def finished(self) -> bool:
        """Whether the vectors span an invariant subspace, or the room is used up."""
        return bool(self.beta) and (self.beta[-1] == 0 or len(self.alpha) + 1 >= len(self.basis))

    def add(self, product: Tensor) -> None:
        """Take in the product of the matrix with ``vector``."""
        known = self.basis[: len(self.alpha) + 1]
        self.alpha.append(float(product.double() @ known[-1].double()))
        rest = product.clone()
        for _ in range(2):
            rest -= known.T @ (known @ rest)
        norm = float(rest.double().norm())
        # what is left of a vector inside the subspace is rounding error
        negligible = norm <= 4 * torch.finfo(rest.dtype).eps * max(map(abs, [*self.alpha, *self.beta]))
        self.beta.append(0.0 if negligible else norm)
        if self.beta[-1]:
            self.basis[len(self.alpha)] = rest / norm

    def largest(self) -> tuple[float, float]:
        """The largest eigenvalue (with its sign), and the residual that bounds its error."""
        values, residual = self._ritz()
        return float(values[-1]), residual

    def error(self) -> float:
        """An estimate of how far the largest eigenvalue is off; infinite before the gap can be trusted."""
        values, residual = self._ritz()
        if len(values) < _TRUSTED:
            return residual if residual == 0 else float("inf")
        gap = float(values[-1] - values[-2])
        return min(residual, residual**2 / gap) if gap > 0 else residual

    def _ritz(self) -> tuple[np.ndarray, float]:
        """Eigenvalues of T_k, ascending, and the residual of the last."""
        if not np.isfinite(self.alpha).all():
            return np.full(len(self.alpha), np.nan), float("inf")
        between = np.array(self.beta[:-1])
        values, vectors = np.linalg.eigh(np.diag(self.alpha) + np.diag(between, 1) + np.diag(between, -1))
        return values, float(self.beta[-1] * abs(vectors[-1, -1]))
