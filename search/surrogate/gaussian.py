r"""A linear Gaussian model with few points: posterior, evidence, and leave-one-out in closed form.

.. math:: y = \Psi \beta + e, \quad \beta \sim N(\beta_0, \Sigma), \quad e_i \sim N(0, \sigma^2 / w_i), \quad
          K = \Psi \Sigma \Psi^T + \sigma^2 \operatorname{diag}(1 / w)

All is done with the n x n matrix K, so the number of features does not matter. With
:math:`\alpha = K^{-1}(y - \Psi \beta_0)` the residual and the variance of point i when it is left out are
:math:`\alpha_i / K^{-1}_{ii}` and :math:`1 / K^{-1}_{ii}` (Rasmussen and Williams 2006, Gaussian Processes for Machine
Learning, equations 5.10 to 5.12; without a refit).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dpotri
from scipy.stats import t as student

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Gaussian:
    """The model fitted to n points.

    Attributes:
        alpha: K^-1 (y - prior mean): [n].
        inverse: K^-1: [n, n].
        noise: variance of the noise of every point: [n].
        evidence: log marginal likelihood.
    """

    alpha: FloatArray
    inverse: FloatArray
    noise: FloatArray
    evidence: float

    @staticmethod
    def fit(covariance: FloatArray, noise: FloatArray, residual: FloatArray) -> Gaussian:
        r"""Fit.

        Args:
            covariance: of the noiseless values, :math:`\Psi \Sigma \Psi^T`: [n, n].
            noise: variances: [n].
            residual: targets less the prior mean: [n].
        """
        factor, evidence, alpha = _solved(covariance, noise, residual)
        return Gaussian(alpha, _inverse(factor[0]), noise, evidence)

    def left_out(self) -> tuple[FloatArray, FloatArray]:
        """Residual (target less prediction) and standard deviation of every point, predicted from the others."""
        precision = np.diag(self.inverse)
        return self.alpha / precision, np.sqrt(1 / precision)

    def left_out_density(self, freedom: float, points: NDArray[np.bool_]) -> float:
        """Mean log predictive density of the left-out points, as Student t with so many degrees of freedom.

        Unlike a normal density it does not let a few points that no model predicts decide between models.

        Args:
            freedom: degrees.
            points: which count: boolean [n].
        """
        residuals, deviations = (each[points] for each in self.left_out())
        return float(np.mean(student.logpdf(residuals / deviations, freedom) - np.log(deviations)))

    def variance(self, cross: FloatArray, prior: FloatArray) -> FloatArray:
        """Posterior variance of noiseless values.

        Args:
            cross: covariance of m values with the n points: [m, n].
            prior: their prior variance: [m].
        """
        found: FloatArray = np.maximum(prior - np.einsum("mn,nk,mk->m", cross, self.inverse, cross, optimize=True), 0.0)
        return found


def log_evidence(covariance: FloatArray, noise: FloatArray, residual: FloatArray) -> float:
    """The log marginal likelihood alone."""
    return _solved(covariance, noise, residual)[1]


def _solved(
    covariance: FloatArray, noise: FloatArray, residual: FloatArray
) -> tuple[tuple[FloatArray, bool], float, FloatArray]:
    matrix = covariance.copy()
    matrix.flat[:: len(noise) + 1] += noise
    factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
    alpha = cho_solve(factor, residual, check_finite=False)
    log_determinant = 2 * float(np.log(np.diag(factor[0])).sum())
    evidence = -0.5 * (float(residual @ alpha) + log_determinant + len(residual) * math.log(2 * math.pi))
    return factor, evidence, alpha


def _inverse(factor: FloatArray) -> FloatArray:
    """The inverse of L L^T from the lower triangle of ``factor``."""
    lower = np.tril(dpotri(factor, lower=1)[0])
    inverse: FloatArray = lower + lower.T
    inverse.flat[:: len(factor) + 1] *= 0.5
    return inverse
