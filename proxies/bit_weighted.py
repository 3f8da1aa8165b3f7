r"""Scores of sites turned into scores of formats by their bits: what zero-cost proxies have in common.

.. math::
    s[l, f] = \frac{I_l}{\sum_k I_k} \Bigl( 1 - \frac{b_f}{32} \Bigr), \qquad
    b_f = -\tfrac12 \log_2 \bigl( 4^{-b_w(f)} + 4^{-b_a(f)} \bigr)

with I_l the importance of site l. Bit-aware zero-cost scores multiply the score of a layer with its bits and add up,
higher is better (Dong et al. 2023, EMQ, arXiv:2307.10554, section on existing proxies): :math:`\sum_l I_l b_l`. Up to a
constant and a positive factor that is minus the sum of s, so configurations are ranked alike; s is 0 where nothing is
rounded.

b_f is the width of the one quantizer whose noise power is that of weight and activation together: the weight's bits
where the activation stays as it is. That extension to formats that round activations is ours. Only bits count: formats
of equal bits but different scales tie.

These scores rank, they do not estimate a loss: it falls exponentially in the bits, they fall linearly.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..errors import NonFiniteOutput
from ..formats import Format

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..space import SearchSpace

FLOAT_BITS = 32


def noise_bits(target: Format) -> float:
    """The width of the one quantizer whose noise power is that of the weight and the activation of a format."""
    weight, activation = target.weight_bits, target.activation_bits
    if activation is None or activation >= FLOAT_BITS:
        return float(weight)
    narrow, wide = sorted((weight, activation))
    return narrow - 0.5 * math.log2(1 + 4.0 ** (narrow - wide))


def bit_weighted(
    space: SearchSpace, importance: np.ndarray, proxy: str, bits: Callable[[Format], float] = noise_bits
) -> np.ndarray:
    """The table of a proxy that scores sites.

    Args:
        space: sites and formats.
        importance: of every site, not negative [sites].
        proxy: name, for messages.
        bits: width of a format.

    Returns:
        float64 [sites, formats]; NaN where a format is not offered, 0 for float32.

    Raises:
        NonFiniteOutput: an importance is NaN or infinite.
    """
    if not np.isfinite(importance).all():
        row = int(np.argwhere(~np.isfinite(importance))[0][0])
        raise NonFiniteOutput(
            f"proxy {proxy}: the score of site {space.sites[row].name} is {importance[row]}; choose another proxy"
        )
    factor = np.array([1 - bits(Format.parse(name)) / FLOAT_BITS for name in space.formats])
    values = share(importance)[:, None] * factor[None]
    return np.where(space.allowed, values, np.nan)


def weighted_mean(
    space: SearchSpace, importance: Sequence[np.ndarray], proxy: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """The table of the mean of several draws of the importance, and its standard error.

    Args:
        space: sites and formats.
        importance: independent draws, each [sites].
        proxy: name, for messages.

    Returns:
        Values [sites, formats], and their standard error (that of the normalizing sum is left out); ``None`` for a
        single draw, which does not show it.

    Raises:
        NonFiniteOutput: an importance is NaN or infinite.
    """
    draws = np.stack(list(importance))
    mean = draws.mean(0)
    values = bit_weighted(space, mean, proxy)
    if len(draws) < 2:
        return values, None
    relative = draws.std(0, ddof=1) / np.sqrt(len(draws)) / np.maximum(mean, np.finfo(np.float64).tiny)
    return values, values * relative[:, None]


def share(importance: np.ndarray) -> np.ndarray:
    """Each site's share in the sum; zeros where all are zero."""
    total = float(importance.sum())
    return importance / total if total > 0 else np.zeros_like(importance)
