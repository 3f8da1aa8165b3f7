r"""The residual between the sum of the parts and the measured whole model: Bayesian linear regression.

With the parts :math:`x(c)` of ``Terms`` in milliseconds, :math:`y = \theta^\top x(c)\,(1 + \varepsilon)`,
:math:`\varepsilon \sim N(0, s^2)`, and the prior :math:`\theta \sim N(1, T)`,
:math:`T = \operatorname{diag}(\tau^2) + \tau_0^2 \mathbf{1 1}^\top`: without measurements the whole is the sum of its
parts. Dividing by y makes the noise even; then the posterior is :math:`\theta \sim N(m, S)` with
:math:`S^{-1} = T^{-1} + X^\top X / s^2` (Bishop, Pattern Recognition and Machine Learning, 2006, eq. 3.50-3.51). The
noise is MacKay's fixed point (eq. 3.91, 3.95) with :math:`\nu_0` measurements' worth of prior belief,
:math:`s^2 = (\lVert r \rVert^2 + \nu_0 s_0^2) / (n - \gamma + \nu_0)`,
:math:`\gamma = \operatorname{tr}(S X^\top X) / s^2`: a few exports that happen to fit do not make it small.
A new configuration is foretold as :math:`m^\top x` with the variance :math:`x^\top S x + s^2 (m^\top x)^2` (eq. 3.59).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .terms import CODES, FALLBACK, LAYOUT, OTHER, PARTS, UNFUSED

#: Prior standard deviations of the factors: kernels repeat within a few percent inside a model, conversions are
#: shared out by rule of thumb. All factors together move with the state of the machine.
_TAU = np.full(len(PARTS), 0.1)
_TAU[OTHER] = 0.15
_TAU[[LAYOUT, CODES, FALLBACK]] = 0.6
_TAU[UNFUSED] = 1.0
_COMMON = 0.1
_PRIOR = np.diag(_TAU**2) + _COMMON**2
#: Relative noise before anything was measured, and how many measurements that belief is worth.
_NOISE, _BELIEF = 0.04, 4.0
_STEPS = 50


@dataclass(frozen=True)
class Residual:
    """Factors of the parts.

    Attributes:
        mean: float64 array [parts].
        covariance: array [parts, parts].
        noise: relative standard deviation of a measurement around the model.
        exports: how many measured exports it was fitted to; 0 for the prior.
        freedom: degrees of freedom left for ``noise``: of the t distribution that intervals come from.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    noise: float
    exports: int = 0
    freedom: float = np.inf

    def predict(self, parts: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Latency and its standard deviation, both [points], from parts [points, parts]."""
        ms = parts @ self.mean
        variance = np.einsum("pf,fg,pg->p", parts, self.covariance, parts) + (self.noise * ms) ** 2
        return ms, np.sqrt(variance)


def prior() -> Residual:
    """Every part as estimated, with the errors that such estimates have."""
    return Residual(np.ones(len(PARTS)), _PRIOR, _NOISE)


def fit(parts: NDArray[np.float64], measured_ms: NDArray[np.float64]) -> Residual:
    """Learn the factors from measured exports.

    Args:
        parts: float64 array [exports, parts] of ``Terms.of``.
        measured_ms: float64 array [exports], > 0.

    Returns:
        The posterior.
    """
    x = parts / measured_ms[:, None]
    precision = np.linalg.inv(_PRIOR)
    wanted = 1.0 - x.sum(axis=1)  # what the prior mean of 1 leaves
    noise, free = _NOISE, _BELIEF
    shift, covariance = np.zeros(x.shape[1]), _PRIOR
    for _ in range(_STEPS):
        covariance = np.asarray(np.linalg.inv(precision + x.T @ x / noise**2), dtype=np.float64)
        shift = np.asarray(covariance @ x.T @ wanted / noise**2, dtype=np.float64)
        used = float(np.trace(covariance @ x.T @ x)) / noise**2
        free = len(x) - used + _BELIEF
        left = float(((wanted - x @ shift) ** 2).sum()) + _BELIEF * _NOISE**2
        before, noise = noise, float(np.sqrt(left / free))
        if abs(noise - before) < 1e-6:
            break
    return Residual(1.0 + shift, covariance, noise, len(x), free)
