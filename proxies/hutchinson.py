r"""Hutchinson's estimator: the trace of a matrix that is only known by its products with vectors.

.. math:: E[v^\top A v] = \operatorname{tr} A \quad \text{for random signs } v, \qquad
          \operatorname{Var}[v^\top A v] = 2 \bigl( \lVert A \rVert_F^2 - \textstyle\sum_i A_{ii}^2 \bigr)

for symmetric A. Hutchinson 1990 (Communications in Statistics, Simulation and Computation 19(2)).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInput

Products = Callable[[Tensor], Tensor]
"""Vectors [dimension, k] -> their products with a symmetric matrix [dimension, k]."""


@dataclass(frozen=True)
class TraceEstimate:
    """An estimate of a trace.

    Attributes:
        value: the estimate.
        error: its standard error, as the estimator sees it; 0 where it knows the trace exactly.
        products: matrix-vector products used.
    """

    value: float
    error: float
    products: int


def hutchinson(
    matrix: Products, dimension: int, products: int, generator: torch.Generator, like: Tensor | None = None
) -> TraceEstimate:
    """Mean of v . A v over random signs.

    Args:
        matrix: A.
        dimension: its rows.
        products: at least 2, so that the error can be seen.
        generator: of the signs, on the CPU.
        like: a tensor of the type and device that ``matrix`` takes; float32 on the CPU without.

    Raises:
        InvalidInput: fewer than 2 products.
    """
    if products < 2:
        raise InvalidInput(f"Hutchinson's estimator needs at least 2 products to see its error, got {products}")
    probes = random_signs((dimension, products), generator, like)
    samples = (probes * matrix(probes)).double().sum(0)
    return TraceEstimate(float(samples.mean()), standard_error(samples), products)


def random_signs(shape: tuple[int, ...], generator: torch.Generator, like: Tensor | None = None) -> Tensor:
    """Independent signs of a shape, of the type and on the device of ``like``."""
    draws = torch.randint(0, 2, shape, generator=generator, dtype=torch.int8).mul_(2).sub_(1)
    return draws.float() if like is None else draws.to(like.device, like.dtype)


def standard_error(samples: Tensor) -> float:
    """Standard error of the mean of independent samples [k]; infinite for a single one."""
    return float(samples.std() / math.sqrt(len(samples))) if len(samples) > 1 else math.inf
