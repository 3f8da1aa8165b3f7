r"""Amplitudes of the kernel's parts and of the noise from the evidence, with a Gaussian prior on their logarithms.

.. math::
    -\log p(r, a) = \tfrac12 r^\top M^{-1} r + \tfrac12 \log|M|
    + \tfrac12 \sum_i \frac{(\log a_i - \mu_i)^2}{\sigma_i^2}, \quad M = \sum_i a_i K_i + a_0 I

(Rasmussen & Williams 2006, eq. 5.8 and 5.9, with a prior: type-II maximum a posteriori.) With 20 measurements the
prior, which the source devices taught, decides; with 300 the measurements do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from ..law import Floats
from .kernels import PARTS


@dataclass(frozen=True)
class Amplitudes:
    """Logarithms of variances: one a part, then the noise; as belief (mean and deviation) or as found.

    Attributes:
        log: float64 [parts + 1].
        spread: standard deviation of the belief [parts + 1].
    """

    log: Floats
    spread: Floats

    @property
    def parts(self) -> Floats:
        """Variances of the parts."""
        return np.exp(self.log[:-1])

    @property
    def noise(self) -> float:
        """Variance of the noise."""
        return float(np.exp(self.log[-1]))


#: Bounds of the logarithms: a noise below 0.1 % is no measurement's, and keeps the factorization sound.
_LEAST, _LEAST_NOISE, _MOST = -25.0, float(np.log(0.001**2)), 6.0

#: Before any device taught better: in log t, a few tenths by law and tables, some hundredths by place, 8 % noise.
UNTAUGHT = Amplitudes(
    np.log(np.array([0.6, 0.4, 0.15, 0.15, 0.0025, 0.0025, 0.0064, 0.0064, 0.0016, 0.0036, 0.1, 0.1, 0.0025, 0.0064])),
    np.full(len(PARTS) + 1, 2.0),
)


def learned(kernels: Floats, deviation: Floats, belief: Amplitudes, steps: int = 40) -> Amplitudes:
    """The amplitudes of highest posterior density.

    Args:
        kernels: parts with amplitude 1 [parts, rows, rows].
        deviation: measured log t less the prior mean [rows].
        belief: the prior.
        steps: of L-BFGS.
    """
    found = minimize(
        negative_log_posterior,
        belief.log,
        args=(kernels, deviation, belief),
        jac=True,
        method="L-BFGS-B",
        bounds=[(_LEAST, _MOST)] * len(PARTS) + [(_LEAST_NOISE, _MOST)],
        options={"maxiter": steps},
    )
    return Amplitudes(found.x, belief.spread)


def negative_log_posterior(log: Floats, kernels: Floats, deviation: Floats, belief: Amplitudes) -> tuple[float, Floats]:
    """The value above (without constants) and its gradient by the logarithms."""
    rows = len(deviation)
    amplitudes, noise = np.exp(log[:-1]), np.exp(log[-1])
    factor = cho_factor(np.tensordot(amplitudes, kernels, 1) + noise * np.eye(rows), lower=True)
    solved = cho_solve(factor, deviation)
    slack = cho_solve(factor, np.eye(rows)) - np.outer(solved, solved)
    away = (log - belief.log) / belief.spread
    value = 0.5 * deviation @ solved + np.log(np.diag(factor[0])).sum() + 0.5 * away @ away
    fitted = 0.5 * amplitudes * np.tensordot(kernels, slack, 2)
    gradient = np.append(fitted, 0.5 * noise * np.trace(slack)) + away / belief.spread
    return float(value), gradient
