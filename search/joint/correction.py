r"""What quality a genome will have: the float network, what its formats lose, and what its architecture has shown.

.. math:: \hat q(a, c) = f_a + o_a + k_a e^{\alpha} s_a(c)^{\beta}

with :math:`f_a` the quality of the float network and s the additive score. The power law is one for all architectures
(``surrogate.PowerLaw``, fitted to the losses :math:`q - f_a` in logarithms, as losses spread over orders of magnitude).
Each architecture has two corrections, learned from its own measured points:

- :math:`\log k_a`, by how much its formats lose more or less than the law says: the mean log residual of its points
  that lose anything, shrunk towards 0 by n / (n + 1),
- :math:`o_a`, how far off a *foretold* float quality is: the mean of :math:`q - f_a - k_a e^\alpha s^\beta`, every
  point weighted by the inverse square of its foretold loss, shrunk likewise. 0 where the float network was measured,
  because all genomes are measured on the same samples.

Both leave the order of an architecture's own points as it is, so its exact front stays exact; what changes is how the
fronts lie to each other. The interval of a prediction is that of a loss with relative error :math:`\sigma` (log
residuals, each against the correction that the others give) and absolute error :math:`\sigma_0` (residuals of the
points that lose least: the noise of few samples).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...architecture import Choices
from ..surrogate import PowerLaw

FloatArray = NDArray[np.float64]
_KAPPA = 1.0  # measured points that no correction counts for
_NORMAL = 1.959964  # 95 %
_FARTHEST = 100.0  # largest log of a foretold loss: a law through nearly equal scores may be as steep as one likes
_MAD = 1.4826  # times the median absolute value: the standard deviation of a normal distribution


@dataclass(frozen=True)
class Seen:
    """A measured genome, as the correction is fitted to it.

    Attributes:
        choices: its architecture.
        score: additive score of its formats; 0 for the float network.
        quality: measured.
    """

    choices: Choices
    score: float
    quality: float


@dataclass(frozen=True)
class Correction:
    """From (architecture, score) to quality.

    Attributes:
        floats: quality of the float network, by architecture.
        law: from score to loss of quality; ``None`` as long as fewer than three points lose anything: the score itself
            is taken for the loss then.
        factors: :math:`k_a`, of architectures with measured points that lose anything.
        offsets: :math:`o_a`, of architectures whose float network was foretold and that have measured points.
        relative: standard deviation of the log residuals; 0 for fewer than two points.
        absolute: standard deviation of the residuals where formats lose least.
    """

    floats: Mapping[Choices, float]
    law: PowerLaw | None
    factors: Mapping[Choices, float]
    offsets: Mapping[Choices, float]
    relative: float = 0.0
    absolute: float = 0.0

    @staticmethod
    def fit(floats: Mapping[Choices, float], seen: Sequence[Seen]) -> Correction:
        """Fit the law and the corrections to everything measured.

        Args:
            floats: quality of the float network, measured or foretold, of every architecture in ``seen``.
            seen: the measured genomes; a float network among them says that its quality was measured.
        """
        exact = {each.choices for each in seen if each.score <= 0}
        points = [each for each in seen if each.score > 0]
        losses = np.array([each.quality - floats[each.choices] for each in points])
        law = PowerLaw.fit(np.array([each.score for each in points]), losses)
        plain = Correction(floats, law, {}, {})
        ratios: dict[Choices, list[float]] = {}
        for each, lost in zip(points, losses, strict=True):
            if lost > 0:
                ratios.setdefault(each.choices, []).append(math.log(lost / plain.loss(each.choices, each.score)))
        factors = {choices: math.exp(_shrunk(found)) for choices, found in ratios.items()}
        scaled = Correction(floats, law, factors, {})
        offsets = scaled._offsets([each for each in points if each.choices not in exact])
        left_out = [
            own - _shrunk([*found[:at], *found[at + 1 :]]) for found in ratios.values() for at, own in enumerate(found)
        ]
        relative = float(np.std(left_out)) if len(left_out) > 1 else 0.0
        return Correction(floats, law, factors, offsets, relative, replace(scaled, offsets=offsets)._noise(points))

    def loss(self, choices: Choices, score: float) -> float:
        """What formats of one architecture lose."""
        return float(self.losses(choices, np.array([score]))[0])

    def losses(self, choices: Choices, scores: FloatArray) -> FloatArray:
        """What formats of one architecture lose, from their additive scores [points]: 0 for a score of 0."""
        factor = self.factors.get(choices, 1.0)
        if self.law is None:
            return factor * scores
        logs = self.law.intercept + self.law.slope * np.log(np.maximum(scores, 1e-300))
        found: FloatArray = np.where(scores > 0, np.exp(np.clip(logs, -_FARTHEST, _FARTHEST)), 0.0)
        return factor * found

    def qualities(self, choices: Choices, scores: FloatArray) -> FloatArray:
        """Foretold qualities of points of one architecture, from their scores [points]."""
        return self.floats[choices] + self.offsets.get(choices, 0.0) + self.losses(choices, scores)

    def predict(self, choices: Choices, score: float) -> float:
        """Foretold quality of one genome."""
        return float(self.qualities(choices, np.array([score]))[0])

    def interval(self, choices: Choices, score: float) -> tuple[float, float]:
        """95 % interval of a foretold quality."""
        value, lost, noise = self.predict(choices, score), self.loss(choices, score), _NORMAL * self.absolute
        spread = min(_NORMAL * self.relative, _FARTHEST)
        low, high = (lost * math.exp(sign * spread) for sign in (-1, 1))
        return value - math.hypot(lost - low, noise), value + math.hypot(high - lost, noise)

    def _offsets(self, points: Sequence[Seen]) -> dict[Choices, float]:
        """How far off foretold float networks are."""
        found: dict[Choices, tuple[float, float, int]] = {}
        for each in points:
            lost = max(self.loss(each.choices, each.score), 1e-12)
            total, weight, count = found.get(each.choices, (0.0, 0.0, 0))
            residual = each.quality - self.predict(each.choices, each.score)
            found[each.choices] = total + residual / lost**2, weight + 1 / lost**2, count + 1
        return {choices: total / weight * n / (n + _KAPPA) for choices, (total, weight, n) in found.items()}

    def _noise(self, points: Sequence[Seen]) -> float:
        """Standard deviation of the residuals of the half that is foretold to lose least, by their median."""
        if len(points) < 2:
            return 0.0
        ordered = sorted(points, key=lambda each: self.loss(each.choices, each.score))[: (len(points) + 1) // 2]
        residuals = [abs(each.quality - self.predict(each.choices, each.score)) for each in ordered]
        return _MAD * float(np.median(residuals))


def _shrunk(values: Sequence[float]) -> float:
    return sum(values) / (len(values) + _KAPPA)
