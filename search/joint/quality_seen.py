"""Measured genomes as the law of qualities takes them, and the law of losses itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ...architecture import Choices
from .architecture_kernel import ArchitectureKernel

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
_CEILING = 0.03  # of the largest loss measured, beyond it
_LEAST = 1e-3  # of the largest loss: what any float network is below the ceiling
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
    logs: FloatArray, floats: FloatArray | float, ceiling: float
) -> tuple[FloatArray, FloatArray, FloatArray | float]:
    """What formats lose.

    Args:
        logs: t [points].
        floats: f [points] or of all.
        ceiling: Q; infinite for a plain power law.

    Returns:
        The loss, and its derivatives in t and in f.
    """
    if not math.isfinite(ceiling):
        found = np.exp(np.minimum(logs, _FARTHEST))
        return found, found, 0.0
    least = _LEAST * abs(ceiling)
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
        quality: measured.
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
    def scale(self) -> float:
        """Of differences of quality, before anything else is known."""
        return max(self.widest, float(self.noise.min()))

    @staticmethod
    def of(kernel: ArchitectureKernel, seen: Sequence[Seen], means: Mapping[Choices, float] | None) -> Measured:
        """From measured genomes; the first float network among them is the expectation where there is no predictor."""
        rows = np.array([kernel.index[each.choices] for each in seen], dtype=np.int64)
        used, at = np.unique(rows, return_inverse=True)
        quality = np.array([each.quality for each in seen])
        base = next(each.quality for each in seen if each.score <= 0)
        expected = [base if means is None else means.get(each, base) for each in kernel.index]
        widest = float(max(quality.max() - base, 0.0))
        least = max(1e-3 * widest, 1e-6 * abs(base), 1e-12)
        noise = np.maximum([each.noise for each in seen], least)
        quantized = np.array([each.score > 0 for each in seen])
        logs = np.log(np.where(quantized, [each.score for each in seen], 1.0))
        return Measured(used, at, logs, quantized, quality, noise, base, np.array(expected), widest)


def ceilings(measured: Measured) -> list[float]:
    """The ceilings that are tried: a little above the worst quality, and none."""
    return [measured.base + (1 + _CEILING) * measured.widest, math.inf] if measured.widest > 0 else [math.inf]
