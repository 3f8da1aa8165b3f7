r"""What quality a genome will have, learned from the genomes that were measured, whatever their architectures.

.. math:: \hat q(a, c) = f_a + (Q - f_a)\, \sigma(t), \qquad t = \alpha + \beta \log s_a(c) + \kappa_a

with :math:`s_a(c)` the additive score of the formats, :math:`\sigma(t) = 1 / (1 + e^{-t})`, and Q the worst quality
there is, taken to be a little beyond the worst measured one: an output that says nothing any more cannot get worse. Far
below it this is a power law of the score. Where the measurements speak for it (by their evidence), a plain power law,
:math:`f_a + e^t`, takes its place.

Two numbers belong to an architecture: :math:`f_a`, the quality of its float network, and :math:`\kappa_a`, how much its
formats lose more or less than the law says. Both are Gaussian processes over the architectures
(``architecture_kernel``), so that each measured genome tells of all others, near ones most. A float network that was
measured fixes its :math:`f_a`; otherwise the quantized ones tell of it. With :math:`K = L L^T` of the measured
architectures, :math:`\kappa = \tau L z` and :math:`f = m + \omega (L z' + 2 u)`, u shared by all (m: quality of the
largest float network, or what a predictor foretells), :math:`(\alpha, \log \beta, z, z', u)` minimise

.. math:: \sum_i \frac{(q_i - \hat q_i)^2}{(\lambda \nu_i)^2 + (\rho\, \partial \hat q_i / \partial t)^2}
          + \|z\|^2 + \|z'\|^2 + u^2 + \frac{\alpha^2}{\sigma_\alpha^2}
          + \frac{\log^2 (\beta / \beta_0)}{\sigma_\beta^2}

by least squares (``quality_fit``). :math:`\nu_i` is the sampling error of a measurement; :math:`\lambda` (all genomes
are measured on the same samples, so differences vary less; nearly 0 for float networks, as f is what a measurement of
them gives), :math:`\rho, \tau, \omega` follow by expectation maximisation with the Laplace approximation at the
optimum (Bishop 2006, Pattern Recognition and Machine Learning, sections 9.3 and 4.4).

The order of an architecture's own points is that of their scores, whatever was measured, so its exact front stays
exact; what changes is how the fronts lie to each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...architecture import Choices
from ..surrogate.threads import one_thread
from .architecture_kernel import ArchitectureKernel
from .quality_fit import Fit
from .quality_seen import Measured, Seen, ceilings, loss_at

FloatArray = NDArray[np.float64]
_NORMAL = 1.959964  # 95 %


@dataclass(frozen=True, eq=False)
class QualityLaw:
    """From (architecture, score) to quality.

    Attributes:
        floats: foretold quality of the float network, by architecture.
        factors: log of the factor of an architecture, kappa, by architecture.
        intercept: alpha.
        power: beta.
        ceiling: the worst quality Q; infinite for a plain power law.
    """

    floats: Mapping[Choices, float]
    factors: Mapping[Choices, float]
    intercept: float
    power: float
    ceiling: float
    _fit: Fit = field(repr=False)

    @staticmethod
    @one_thread()
    def fit(
        numbers: Mapping[Choices, FloatArray], seen: Sequence[Seen], means: Mapping[Choices, float] | None = None
    ) -> QualityLaw:
        """Fit to everything measured.

        Args:
            numbers: what describes every architecture that will be asked about [p]: logs of prices.
            seen: the measured genomes; the first float network among them is the largest.
            means: quality of float networks as a predictor foretells it; ``None``: nothing is known of them.

        Raises:
            InvalidInput: no float network was measured.
        """
        kernel = ArchitectureKernel.of(numbers)
        measured = Measured.of(kernel, seen, means)
        best = max((Fit.of(kernel, measured, each) for each in ceilings(measured)), key=lambda fit: fit.evidence)
        factors, floats = best.all()
        names = list(kernel.index)
        return QualityLaw(
            dict(zip(names, floats.tolist(), strict=True)),
            dict(zip(names, factors.tolist(), strict=True)),
            float(best.unknowns[0]),
            math.exp(best.unknowns[1]),
            best.ceiling,
            best,
        )

    def qualities(self, choices: Choices, scores: FloatArray) -> FloatArray:
        """Foretold qualities of points of one architecture, from their scores [points]."""
        return self.floats[choices] + self.losses(choices, scores)

    def losses(self, choices: Choices, scores: FloatArray) -> FloatArray:
        """What formats of one architecture lose, from their scores [points]: 0 for a score of 0."""
        logs = self._log(choices) + self.power * np.log(np.maximum(scores, 1e-300))
        found: FloatArray = np.where(scores > 0, loss_at(logs, self.floats[choices], self.ceiling, self._least)[0], 0.0)
        return found

    def predict(self, choices: Choices, score: float) -> float:
        """Foretold quality of one genome."""
        return float(self.qualities(choices, np.array([score]))[0])

    @property
    def noise(self) -> float:
        """Standard error of a measurement against others on the same samples."""
        return self._fit.shared * float(np.median(self._fit.measured.noise))

    @one_thread()
    def interval(self, choices: Choices, score: float) -> tuple[float, float]:
        """95 % interval of what a measurement of a genome will give."""
        fit, log = self._fit, math.log(score) if score > 0 else 0.0
        inside, outside = fit.around(fit.kernel.index[choices], log)
        value, wide = self.floats[choices], _NORMAL * math.hypot(self.noise, math.sqrt(outside))
        if score <= 0:
            return value - wide, value + wide
        far = _NORMAL * math.sqrt(inside + fit.relative**2)
        logs = self._log(choices) + self.power * log + far * np.array([-1.0, 0.0, 1.0])
        low, middle, high = loss_at(logs, value, self.ceiling, self._least)[0]
        return float(value + middle - math.hypot(middle - low, wide)), float(
            value + middle + math.hypot(high - middle, wide)
        )

    @property
    def _least(self) -> float:
        return self._fit.measured.least

    def _log(self, choices: Choices) -> float:
        return self.intercept + self.factors[choices]
