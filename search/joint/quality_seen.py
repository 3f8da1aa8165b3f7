"""Measured genomes as the law of qualities takes them, and the law of losses itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ...architecture import Choices
from ...errors import InvalidInput
from .architecture_kernel import ArchitectureKernel

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
_CEILING = 0.03  # of the largest loss measured, beyond it
_LEAST = 1e-3  # of the largest loss: what any float network is below the ceiling, and the least noise
_WORST = 20.0  # times the largest of the float quality and the upper quartile of losses: what is worse counts as this
_FARTHEST = 30.0  # largest exponent of a plain power law


@dataclass(frozen=True)
class Seen:
    """A measured genome.

    Attributes:
        choices: its architecture.
        score: additive score of its formats; 0 for a float network.
        quality: measured.
        noise: standard error of the quality over samples.
    """

    choices: Choices
    score: float
    quality: float
    noise: float = 0.0


def loss_at(
    logs: FloatArray, floats: FloatArray | float, ceiling: float, least: float
) -> tuple[FloatArray, FloatArray, FloatArray | float]:
    """What formats lose.

    Args:
        logs: t [points].
        floats: f [points] or of all.
        ceiling: Q; infinite for a plain power law.
        least: what every float network is below the ceiling.

    Returns:
        The loss, and its derivatives in t and in f.
    """
    if not math.isfinite(ceiling):
        found = np.exp(np.minimum(logs, _FARTHEST))
        return found, found, 0.0
    room, share = np.maximum(ceiling - floats, least), expit(logs)
    return room * share, room * share * (1 - share), np.where(ceiling - floats > least, -share, 0.0)


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured, as columns.

    Attributes:
        used: rows of the kernel with a measurement [n].
        at: of which of them each measurement is [measurements].
        logs: log of the score; 0 for a float network.
        quantized: whether it has formats.
        quality: measured; what is beyond all use (a perplexity of 1e12) counts as no worse than the worst of use.
        noise: standard error, at least a little.
        base: quality of the largest float network.
        prior: m, the float quality expected of every architecture of the kernel [architectures].
        widest: the largest loss.
    """

    used: IntArray
    at: IntArray
    logs: FloatArray
    quantized: NDArray[np.bool_]
    quality: FloatArray
    noise: FloatArray
    base: float
    prior: FloatArray
    widest: float

    @property
    def least(self) -> float:
        """What every float network is below the ceiling."""
        return max(_LEAST * self.widest, 1e-12)

    @property
    def scale(self) -> float:
        """Of differences of quality, before anything else is known."""
        return max(self.widest, float(self.noise.min()))

    @staticmethod
    def of(kernel: ArchitectureKernel, seen: Sequence[Seen], means: Mapping[Choices, float] | None) -> Measured:
        """From measured genomes; the first float network among them is the expectation where there is no predictor.

        Raises:
            InvalidInput: there is no float network among them.
        """
        rows = np.array([kernel.index[each.choices] for each in seen], dtype=np.int64)
        used, at = np.unique(rows, return_inverse=True)
        base = next((each.quality for each in seen if each.score <= 0), None)
        if base is None:
            raise InvalidInput("a law of qualities needs a measured float network, that of the largest architecture")
        quality = np.array([each.quality for each in seen])
        lost = np.maximum(quality[quality > base] - base, 0.0)
        typical = float(np.quantile(lost, 0.75)) if len(lost) else 0.0
        quality = np.minimum(quality, base + _WORST * max(abs(base), typical))
        expected = [base if means is None else means.get(each, base) for each in kernel.index]
        widest = float(max(quality.max() - base, 0.0))
        least = max(_LEAST * widest, 1e-6 * abs(base), 1e-12)
        noise = np.maximum([each.noise for each in seen], least)
        quantized = np.array([each.score > 0 for each in seen])
        logs = np.log(np.where(quantized, [each.score for each in seen], 1.0))
        return Measured(used, at, logs, quantized, quality, noise, base, np.array(expected), widest)


def ceilings(measured: Measured) -> list[float]:
    """The ceilings that are tried: a little above the worst quality, and none."""
    return [measured.base + (1 + _CEILING) * measured.widest, math.inf] if measured.widest > 0 else [math.inf]
