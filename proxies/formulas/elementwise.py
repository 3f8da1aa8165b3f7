r"""Elementwise operators of formulas; protected: every finite input has a value.

Arguments of logarithms, divisors and exponents are clipped, so nothing divides by zero or takes the logarithm of what
is not positive. What overflows its type becomes infinite, and a formula that carries that to its scores is unusable.

The operators are those of EMQ (Dong et al. 2023, arXiv:2307.10554, appendix) and of EZNAS (Akhauri et al. 2022,
arXiv:2209.07413, table of primitives), with :math:`2^{-x}`, by which the noise of b bits falls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
EPSILON = 1e-12
"""Smallest argument of a logarithm and smallest size of a divisor."""

LARGEST_EXPONENT = 60.0
"""Exponents are clipped to plus and minus this: exp(60) = 1.1e26 is finite in float32."""


def log(x: Array) -> Array:
    """Logarithm of max(x, 1e-12)."""
    found: Array = np.log(np.maximum(x, _epsilon(x)))
    return found


def log_abs(x: Array) -> Array:
    r"""Logarithm of max(\|x\|, 1e-12)."""
    found: Array = np.log(np.maximum(np.abs(x), _epsilon(x)))
    return found


def sqrt(x: Array) -> Array:
    r"""Root of the size: sqrt \|x\|."""
    return np.sqrt(np.abs(x))


def exp(x: Array) -> Array:
    """Exponential of x clipped to [-60, 60]."""
    return np.exp(_clipped(x))


def power_of_half(x: Array) -> Array:
    """2 to the power of -x, x clipped to [-60, 60]: of bits, the step of a quantizer relative to its range."""
    return np.exp2(-_clipped(x))


def relu(x: Array) -> Array:
    """max(x, 0)."""
    found: Array = np.maximum(x, x.dtype.type(0))
    return found


def invert(x: Array) -> Array:
    """1/x where x is at least 1e-12 in size; below that it goes to 0 with x: x / max(x², 1e-24)."""
    found: Array = x / np.maximum(np.square(x), x.dtype.type(EPSILON**2))
    return found


def complement(x: Array) -> Array:
    """1 - x."""
    found: Array = x.dtype.type(1) - x
    return found


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), x clipped to [-60, 60]."""
    found: Array = 1 / (1 + np.exp(-_clipped(x)))
    return found


def swish(x: Array) -> Array:
    """The product of x and its sigmoid."""
    return x * sigmoid(x)


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), as max(x, 0) + log(1 + exp(-|x|)), which does not overflow."""
    return relu(x) + np.log1p(np.exp(-np.abs(x)))


def divide(x: Array, y: Array) -> Array:
    """The product of x and the protected inverse of y; 0 where y is 0."""
    return x * invert(y)


UNARY: dict[str, Callable[[Array], Array]] = {
    "abs": np.abs,
    "complement": complement,
    "exp": exp,
    "invert": invert,
    "log": log,
    "log_abs": log_abs,
    "negate": np.negative,
    "power_of_half": power_of_half,
    "relu": relu,
    "sigmoid": sigmoid,
    "sign": np.sign,
    "softplus": softplus,
    "sqrt": sqrt,
    "square": np.square,
    "swish": swish,
    "tanh": np.tanh,
}
"""Name -> function of one array; scalars of sites and elements alike."""

BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "divide": divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "multiply": np.multiply,
    "subtract": np.subtract,
}
"""Name -> function of two arrays that broadcast."""

COMMUTATIVE = frozenset({"add", "multiply", "maximum", "minimum", "cosine"})
"""Operators whose arguments may be exchanged."""


def _epsilon(x: Array) -> Any:
    return x.dtype.type(EPSILON)


def _clipped(x: Array) -> Array:
    return np.clip(x, x.dtype.type(-LARGEST_EXPONENT), x.dtype.type(LARGEST_EXPONENT))
