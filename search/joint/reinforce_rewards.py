r"""Rewards of architectures for a controller: one number for a front, larger is better.

A nested search knows the exact front of an architecture, so its reward is that of the best point of that front. With q
the quality of a point (lower is better), c its first price and T the target:

- :math:`(1 - q)\,(c / T)^w`: ProxylessNAS (Cai et al., arXiv:1812.00332, equation 8), w = -0.07, q a share of errors;
- :math:`-q / u - \beta\,|c / T - 1|`: the absolute reward (TuNAS, Bender et al., arXiv:2008.06120, equation 2; FLIQS,
  Dotzel et al., arXiv:2308.03290), with u the unit that a quality is counted in; its best points lie at the target;
- :math:`-g`, with g the distance to the merged front (``merged.gaps``): no target, any part of the front is as good.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ...errors import InvalidInput
from .proposer import Told

_BEYOND = 0.1  # how far a foretold share of errors may be outside of 0 to 1

Reward: TypeAlias = Callable[[Told], float]
"""Of an architecture with a front; larger is better, minus infinity where there is no front."""


@dataclass(frozen=True)
class FrontReward:
    """How near its front is to the merged one."""

    def __call__(self, told: Told) -> float:
        """Minus the gap: 0 for an architecture that contributes."""
        return -told.gap


@dataclass(frozen=True)
class SoftReward:
    """Accuracy times a power of the latency.

    Attributes:
        target: price that is asked for.
        exponent: w, below 0.

    Raises:
        InvalidInput: a target that is not positive, or an exponent above 0.
    """

    target: float
    exponent: float = -0.07

    def __post_init__(self) -> None:
        _check_target(self.target)
        if not self.exponent <= 0:
            raise InvalidInput(f"exponent={self.exponent}; a reward must fall with the price: give 0 or less")

    def __call__(self, told: Told) -> float:
        """The best point's reward; a share that is foretold below 0 counts as 0.

        Raises:
            InvalidInput: a quality is no share of errors.
        """
        if not len(told.front):
            return -math.inf
        wrong, price = np.maximum(told.front[:, 0], 0.0), told.front[:, 1]
        if not -_BEYOND <= told.quality <= 1 + _BEYOND:
            raise InvalidInput(
                f"this reward takes shares of errors, got the quality {told.quality}; use AbsoluteReward"
            )
        return float(np.max(np.maximum(1 - wrong, 0.0) * (price / self.target) ** self.exponent))


@dataclass(frozen=True)
class AbsoluteReward:
    """Quality, and how far the price is from the target on either side.

    Attributes:
        target: price that is asked for.
        strength: beta: what a price of twice the target costs, in units.
        unit: of the quality; 1 for shares of errors.

    Raises:
        InvalidInput: a number that is not positive.
    """

    target: float
    strength: float = 0.1
    unit: float = 1.0

    def __post_init__(self) -> None:
        _check_target(self.target)
        if not (self.strength > 0 and self.unit > 0):
            raise InvalidInput(f"strength={self.strength}, unit={self.unit}; both must be positive")

    def __call__(self, told: Told) -> float:
        """The best point's reward."""
        if not len(told.front):
            return -math.inf
        off = np.abs(told.front[:, 1] / self.target - 1)
        return float(np.max(-told.front[:, 0] / self.unit - self.strength * off))


def _check_target(target: float) -> None:
    if not (math.isfinite(target) and target > 0):
        raise InvalidInput(f"target={target}; give the price that is asked for, above 0")
