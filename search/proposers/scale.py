"""A logarithm of quality that is defined everywhere: losses span orders of magnitude, error rates can be 0."""

from __future__ import annotations

import math

_SMALLEST = 1e-9  # quality below which the logarithm turns linear


def signed_log(quality: float) -> float:
    r"""The strictly increasing map :math:`\operatorname{sign}(q) \log(1 + |q| / 10^{-9})`.

    >>> signed_log(0.0), round(signed_log(1e-3) - signed_log(1e-4), 3)
    (0.0, 2.303)
    """
    return math.copysign(math.log1p(abs(quality) / _SMALLEST), quality)
