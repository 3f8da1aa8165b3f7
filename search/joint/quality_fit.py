r"""Fitting the law of qualities: least squares for what is unknown, expectation maximisation for how unknown it is.

See ``quality_law`` for the model. A fit runs a few rounds: the optimum of :math:`(\alpha, \log\beta, z, z', u)` by a
trust region method with the exact Jacobian J; the Laplace approximation :math:`(J^T J)^{-1}` of their covariance; with
it the scales :math:`\tau, \omega` in closed form and the noise :math:`\lambda, \rho` on a grid. The evidence, up to
a constant,

.. math:: \log p = -\tfrac12 \|r\|^2 - \sum_i \log \sigma_i - \tfrac12 \log \det J^T J

(r: all residuals, those of the priors included) decides between a ceiling and a plain power law.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular
from scipy.optimize import least_squares

from .architecture_kernel import ArchitectureKernel
from .quality_seen import Measured, loss_at

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
_POWER, _POWER_SPREAD = 1.5, 0.5  # beta before, and the standard deviation of its log
_FARTHEST_POWER = 4.0  # largest log of beta and of its inverse: the error of a score may be a step, not more
_INTERCEPT = 5.0  # standard deviation of alpha
_UNKNOWN = 2.0  # standard deviation of the mean of all f, in units of omega
_SHARED, _RELATIVE, _SPREAD = 0.35, 0.35, 0.7  # lambda and rho before, and the standard deviation of their logs
_FLOAT = 0.05  # lambda of float networks: f is what a measurement of them gives, on the same samples as all others
_FACTOR, _FLOATS = 0.8, 0.05  # tau before, and omega in units of the largest loss measured
_WORTH = 5.0  # measured architectures that the first tau and omega count for
_STEPS = 2.0 ** np.arange(-2.0, 2.01, 0.5)  # of lambda and rho
_ROUNDS = 4
_JITTER = 1e-8


@dataclass(frozen=True, eq=False)
class Fit:
    """A law fitted to what was measured.

    Attributes:
        kernel: of the architectures.
        measured: the measurements.
        ceiling: Q; infinite for a plain power law.
        root: L, of the kernel of the measured architectures [n, n].
        unknowns: alpha, log of beta, z, z' and u at the optimum [3 + 2 n].
        hessian: J^T J there, factored.
        shared, relative, factor, floats: lambda, rho, tau and omega.
        evidence: its log, up to a constant.
    """

    kernel: ArchitectureKernel
    measured: Measured
    ceiling: float
    root: FloatArray = field(repr=False)
    unknowns: FloatArray = field(repr=False)
    hessian: tuple[FloatArray, bool] = field(repr=False)
    shared: float
    relative: float
    factor: float
    floats: float
    evidence: float

    @staticmethod
    def of(kernel: ArchitectureKernel, measured: Measured, ceiling: float) -> Fit:
        """Fit with one ceiling."""
        count = len(measured.used)
        root = cholesky(kernel.values[np.ix_(measured.used, measured.used)] + _JITTER * np.eye(count), lower=True)
        start = np.zeros(3 + 2 * count)
        start[1] = math.log(_POWER)
        fit = Fit(
            kernel, measured, ceiling, root, start, (np.eye(len(start)), True), _SHARED, _RELATIVE, _FACTOR,
            _FLOATS * measured.scale, -math.inf,
        )  # fmt: skip
        for _ in range(_ROUNDS):
            fit = fit._optimum()._scales()
        return fit._optimum()

    @property
    def _count(self) -> int:
        return len(self.measured.used)

    def _foretold(self, unknowns: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Quality of every measurement, the slope dq/dt, and the gradient in the unknowns [measurements, unknowns]."""
        own, at, count = self.measured, self.measured.at, self._count
        power = math.exp(unknowns[1])
        factors = self.factor * (self.root @ unknowns[2 : 2 + count])
        offsets = self.floats * (self.root @ unknowns[2 + count : -1] + _UNKNOWN * unknowns[-1])
        floats = own.prior[own.used][at] + offsets[at]
        found = loss_at(unknowns[0] + power * own.logs + factors[at], floats, self.ceiling, own.least)
        loss, slope, along = (np.where(own.quantized, each, 0.0) for each in found)
        gradient = np.empty((len(at), len(unknowns)))
        gradient[:, 0] = slope
        gradient[:, 1] = slope * power * own.logs
        gradient[:, 2 : 2 + count] = self.factor * slope[:, None] * self.root[at]
        gradient[:, 2 + count : -1] = self.floats * (1 + along)[:, None] * self.root[at]
        gradient[:, -1] = self.floats * (1 + along) * _UNKNOWN
        return floats + loss, slope, gradient

    def _deviation(self, slope: FloatArray, shared: float, relative: float) -> FloatArray:
        wide = np.where(self.measured.quantized, shared, _FLOAT)
        return np.hypot(wide * self.measured.noise, relative * slope)

    @property
    def _prior(self) -> tuple[FloatArray, FloatArray]:
        """Means and standard deviations of the unknowns before anything is measured."""
        mean, deviation = np.zeros(len(self.unknowns)), np.ones(len(self.unknowns))
        mean[1], deviation[:2] = math.log(_POWER), (_INTERCEPT, _POWER_SPREAD)
        return mean, deviation

    def _optimum(self) -> Fit:
        """The unknowns that explain the measurements best with the deviations of the last round."""
        mean, wide = self._prior
        deviation = self._deviation(self._foretold(self.unknowns)[1], self.shared, self.relative)

        def residuals(unknowns: FloatArray) -> FloatArray:
            off = (self._foretold(unknowns)[0] - self.measured.quality) / deviation
            return np.concatenate([off, (unknowns - mean) / wide])

        def jacobian(unknowns: FloatArray) -> FloatArray:
            return np.concatenate([self._foretold(unknowns)[2] / deviation[:, None], np.diag(1 / wide)])

        wall = np.full(len(self.unknowns), np.inf)
        wall[1] = _FARTHEST_POWER
        found = least_squares(residuals, self.unknowns, jac=jacobian, bounds=(-wall, wall), max_nfev=40)
        slopes = jacobian(found.x)
        product: FloatArray = slopes.T @ slopes
        factor = cho_factor(product + _JITTER * np.eye(len(product)), lower=True)
        determinant = 2 * float(np.log(np.diag(factor[0])).sum())
        evidence = -float(found.cost) - float(np.log(deviation).sum()) - 0.5 * determinant
        return replace(self, unknowns=found.x, hessian=factor, evidence=evidence)

    def _scales(self) -> Fit:
        """The scales that are most likely, given the unknowns and how well they are known."""
        count = self._count
        covariance = cho_solve(self.hessian, np.eye(len(self.unknowns)))
        square = self.unknowns**2 + np.diag(covariance)
        factor, floats = (
            math.sqrt((_WORTH * before**2 + now**2 * float(square[part].sum())) / (_WORTH + count))
            for before, now, part in (
                (_FACTOR, self.factor, slice(2, 2 + count)),
                (_FLOATS * self.measured.scale, self.floats, slice(2 + count, 2 + 2 * count)),
            )
        )
        value, slope, gradient = self._foretold(self.unknowns)
        off = (value - self.measured.quality) ** 2 + np.einsum("mi,ij,mj->m", gradient, covariance, gradient)
        best = min(
            (
                float((2 * np.log(deviation) + off / deviation**2).sum())
                + (math.log(shared) ** 2 + math.log(relative) ** 2) / _SPREAD**2,
                _SHARED * shared,
                _RELATIVE * relative,
            )
            for shared in _STEPS
            for relative in _STEPS
            for deviation in [self._deviation(slope, _SHARED * shared, _RELATIVE * relative)]
        )
        return replace(self, shared=best[1], relative=best[2], factor=factor, floats=floats)

    def all(self) -> tuple[FloatArray, FloatArray]:
        """Kappa and f of every architecture of the kernel, each [architectures]."""
        along, count = self._along(np.arange(len(self.kernel.values))), self._count
        factors = self.factor * (along @ self.unknowns[2 : 2 + count])
        offsets = self.floats * (along @ self.unknowns[2 + count : -1] + _UNKNOWN * self.unknowns[-1])
        return factors, self.measured.prior + offsets

    def around(self, row: int, log: float) -> tuple[float, float]:
        """Variances of t and of f of an architecture at the log of a score."""
        count, along = self._count, self._along(np.array([row]))[0]
        own = max(0.0, float(self.kernel.values[row, row] - along @ along))
        toward = np.zeros((2, len(self.unknowns)))
        toward[0, 0], toward[0, 1] = 1.0, math.exp(self.unknowns[1]) * log
        toward[0, 2 : 2 + count] = self.factor * along
        toward[1, 2 + count : -1], toward[1, -1] = self.floats * along, self.floats * _UNKNOWN
        known = np.einsum("ki,ik->k", toward, cho_solve(self.hessian, toward.T))
        return float(known[0]) + self.factor**2 * own, float(known[1]) + self.floats**2 * own

    def _along(self, rows: IntArray) -> FloatArray:
        """Covariance of architectures with z: [rows, n]."""
        cross = self.kernel.values[np.ix_(self.measured.used, rows)]
        found: FloatArray = solve_triangular(self.root, cross, lower=True).T
        return found
