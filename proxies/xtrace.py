r"""XTrace: Hutch++ with every product used twice, once for the subspace and once for the rest.

With test vectors :math:`\omega_1, \dots, \omega_k` and Q the orthonormal basis of all :math:`A \omega_j`, let
:math:`Q_{(i)}` be the basis without the i-th. Then

.. math::
    t_i = \operatorname{tr}(Q_{(i)}^\top A Q_{(i)})
        + \omega_i^\top (I - Q_{(i)} Q_{(i)}^\top) A (I - Q_{(i)} Q_{(i)}^\top) \omega_i

is unbiased for each i, and XTrace is their mean; :math:`\frac1{k(k-1)} \sum_i (t_i - \bar t)^2` estimates its squared
error (the t_i share products: with few vectors the root is up to a third too small). Epperly, Tropp and Webber 2024,
arXiv:2301.07825, section 2.1, with the update :math:`Q_{(i)} Q_{(i)}^\top = Q (I - s_i s_i^\top) Q^\top`, s_i the
normalized i-th column of :math:`R^{-\top}`, so that 2k products serve all k bases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.linalg import qr, solve_triangular

from ..errors import InvalidInput
from .hutchinson import Products, TraceEstimate, random_signs, standard_error

if TYPE_CHECKING:
    from torch import Tensor


def xtrace(
    matrix: Products, dimension: int, products: int, generator: torch.Generator, like: Tensor | None = None
) -> TraceEstimate:
    """Estimate a trace.

    Where the sketch spans the whole space, or the whole range of a matrix of low rank, the trace is exact and its
    error 0 (up to rounding).

    Args:
        matrix: symmetric A.
        dimension: its rows.
        products: at most, half of it (rounded down) per pass; at least 4, so that the error can be seen.
        generator: of the signs, on the CPU.
        like: a tensor of the type and device that ``matrix`` takes; float32 on the CPU without.

    Raises:
        InvalidInput: fewer than 4 products.
    """
    if products < 4:
        raise InvalidInput(f"XTrace needs at least 4 products to see its error, got {products}")
    columns = min(products // 2, dimension)
    probes = random_signs((dimension, columns), generator, like)
    images = matrix(probes)
    basis, triangle = qr(images)
    products_of_basis = matrix(basis)
    inner = basis.T @ products_of_basis
    whole = inner.diagonal().double().sum()
    scale = triangle.diagonal().abs()
    if columns == dimension or bool(scale.min() <= 10 * torch.finfo(images.dtype).eps * scale.max() * columns):
        # the basis without one vector still spans the range: nothing is left for the test vectors
        return TraceEstimate(float(whole), 0.0, 2 * columns)
    left_out = solve_triangular(triangle.T, torch.eye(columns).to(triangle), upper=False)
    left_out = left_out / left_out.norm(dim=0)  # s_i in column i
    # P_i w_i = w_i - Q c_i with c_i = (I - s_i s_i^T) Q^T w_i; then w_i^T P_i A P_i w_i by the products already made
    shadow = basis.T @ probes
    coefficients = shadow - left_out * (left_out * shadow).sum(0)
    removed = (left_out * (inner @ left_out)).double().sum(0)
    cross = (coefficients * (products_of_basis.T @ probes)).double().sum(0)
    rest = (probes * images).double().sum(0) - 2 * cross + (coefficients * (inner @ coefficients)).double().sum(0)
    samples = whole - removed + rest
    return TraceEstimate(float(samples.mean()), standard_error(samples), 2 * columns)
