r"""Hutch++: the part of the trace in a sketched subspace exactly, the rest by Hutchinson's estimator.

.. math::
    \operatorname{tr}(Q^\top A Q) + \frac1k \sum_{j=1}^k g_j^\top (I - QQ^\top) A (I - QQ^\top) g_j,
    \qquad Q = \operatorname{orth}(A S)

with S and G of k = products / 3 columns of random signs. Unbiased, because G is independent of Q. For positive
semi-definite A the relative error falls as 1 / products instead of 1 / root of products. Meyer, Musco, Musco and
Woodruff 2021, arXiv:2010.09649, algorithm 1. It pays where few directions carry the trace; with a flat spectrum two
thirds of the products are spent on a subspace that holds little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.linalg import qr

from ..errors import InvalidInput
from .hutchinson import Products, TraceEstimate, random_signs, standard_error

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def hutchpp(
    matrix: Products, dimension: int, products: int, generator: torch.Generator, like: Tensor | None = None
) -> TraceEstimate:
    """Estimate a trace.

    Where the sketch spans the whole space the trace is exact and its error 0.

    Args:
        matrix: symmetric A.
        dimension: its rows.
        products: at most, a third of it (rounded down) per part; at least 6, so that the error can be seen.
        generator: of the signs, on the CPU.
        like: a tensor of the type and device that ``matrix`` takes; float32 on the CPU without.

    Returns:
        The trace; its error is the standard error of the second part given Q, which is all the randomness that the
        unbiasedness rests on.

    Raises:
        InvalidInput: fewer than 6 products.
    """
    if products < 6:
        raise InvalidInput(f"Hutch++ needs at least 6 products to see its error, got {products}")
    columns = min(products // 3, dimension)
    sketch = matrix(random_signs((dimension, columns), generator, like))
    basis = qr(sketch).Q
    inside = float((basis * matrix(basis)).double().sum())
    if columns == dimension:
        return TraceEstimate(inside, 0.0, 2 * columns)
    probes = random_signs((dimension, columns), generator, like)
    outside = probes - basis @ (basis.T @ probes)
    samples = (outside * matrix(outside)).double().sum(0)
    return TraceEstimate(inside + float(samples.mean()), standard_error(samples), 3 * columns)
