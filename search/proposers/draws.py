r"""Random configurations at a wanted total price.

A format f of group g is drawn with probability :math:`p(f \mid g) \propto \exp(-\lambda u_{gf})`, where
:math:`u_{gf} \in [0, 1]` is its place between the cheapest and the dearest format of the group. The draw is
:math:`\arg\max_f (G_{gf} - \lambda u_{gf})` with Gumbel noise G: for given noise its price does not rise with
:math:`\lambda`, so the largest price within the target is found by bisection (the bench draws the same way, by size).
"""

from __future__ import annotations

import numpy as np

from ..groups import IntArray
from .limits import FloatArray
from .repair import BoolArray

_STEPS = 50  # of the bisection
_STEEPEST = 200.0  # |lambda| at which the noise no longer matters


def tilted(prices: FloatArray, allowed: BoolArray, most: float, noise: FloatArray) -> IntArray:
    """A random configuration whose price is just within a target, if any draw is.

    Args:
        prices: [groups, formats].
        allowed: [groups, formats].
        most: the largest total wanted.
        noise: Gumbel noise [groups, formats].

    Returns:
        Genes [groups]; where even the cheapest exceed the target, those.
    """
    low = np.where(allowed, prices, np.inf).min(axis=1, keepdims=True)
    high = np.where(allowed, prices, -np.inf).max(axis=1, keepdims=True)
    place = np.where(allowed, (prices - low) / np.where(high > low, high - low, 1.0), 0.0)
    offered = np.where(allowed, noise, -np.inf)
    every = np.arange(len(prices))

    def drawn(slope: float) -> IntArray:
        columns: IntArray = np.argmax(offered - slope * place, axis=1).astype(np.int64)
        return columns

    flat, steep = -_STEEPEST, _STEEPEST
    for _ in range(_STEPS):
        middle = (flat + steep) / 2
        if prices[every, drawn(middle)].sum() > most:
            flat = middle
        else:
            steep = middle
    return drawn(steep)


def flat(allowed: BoolArray, noise: FloatArray) -> IntArray:
    """A configuration of formats that all have the same chance: [groups]."""
    columns: IntArray = np.argmax(np.where(allowed, noise, -np.inf), axis=1).astype(np.int64)
    return columns
