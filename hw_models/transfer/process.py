"""The Gaussian process of one device: law and remainder together, fitted to a few measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

from ..gemm import Gemms
from ..law import Floats
from .evidence import Amplitudes, learned
from .kernels import parts, variance
from .prior import Features, Prior, Shapes

#: Gauss-Newton steps on the law's parameters; amplitudes are learned at some of them.
_STEPS = 7
_LEARNS = (0, 3, 6)
#: A step moves a parameter (a logarithm) by no more than this.
_LONGEST = 0.7
#: Rows that are predicted at once: bounds memory at about 13 x 1000 x 300 numbers.
_BLOCK = 1000


@dataclass(frozen=True)
class Process:
    """A posterior over log t of every product on a device.

    Attributes:
        prior: of the device.
        theta: format -> the point where the law is linearized.
        amplitudes: of the kernel's parts and of the noise.
        seen: features of the measured products; no rows before the first measurement.
        factor: lower Cholesky factor of their covariance, noise included.
        solved: covariance^-1 (log t - prior mean).
    """

    prior: Prior
    theta: Mapping[str, Floats]
    amplitudes: Amplitudes
    seen: Features
    factor: Floats
    solved: Floats

    def posterior(self, gemms: Gemms) -> tuple[Floats, Floats]:
        """Mean and standard deviation of a new measurement's log ms, each float64 [rows]."""
        shapes = self.prior.shapes(gemms)
        mean, deviation = np.empty(len(gemms)), np.empty(len(gemms))
        for first in range(0, len(gemms), _BLOCK):
            rows = np.arange(first, min(first + _BLOCK, len(gemms)))
            features = self.prior.features(shapes.take(rows), self.theta)
            cross = self.covariance(features, self.seen)
            left = solve_triangular(self.factor, cross.T, lower=True)
            mean[rows] = features.mean + cross @ self.solved
            spare = variance(features, self.amplitudes.parts) - (left**2).sum(0)
            deviation[rows] = np.sqrt(np.maximum(spare, 0.0) + self.amplitudes.noise)
        return mean, deviation

    def covariance(self, one: Features, other: Features) -> Floats:
        """Prior covariance of log t without noise [rows of one, rows of other]."""
        result: Floats = np.tensordot(self.amplitudes.parts, parts(one, other), 1)
        return result

    def remaining(self, one: Features, other: Features) -> Floats:
        """The covariance that the measurements leave, [rows of one, rows of other]."""
        left = solve_triangular(self.factor, self.covariance(one, self.seen).T, lower=True)
        right = solve_triangular(self.factor, self.covariance(other, self.seen).T, lower=True)
        result: Floats = self.covariance(one, other) - left.T @ right
        return result


def before(prior: Prior, belief: Amplitudes) -> Process:
    """The process without a measurement."""
    none = _empty(prior)
    return Process(prior, prior.start(), belief, none, np.zeros((0, 0)), np.zeros(0))


def fitted(prior: Prior, samples: Gemms, log_ms: Floats, belief: Amplitudes) -> Process:
    """The process after some measurements.

    The law is linearized at its posterior mean, found by Gauss-Newton with bounded steps.

    Args:
        prior: of the device.
        samples: the measured products, at least one.
        log_ms: logarithm of their milliseconds.
        belief: about the amplitudes.
    """
    shapes = prior.shapes(samples)
    theta, amplitudes = prior.start(), belief
    for step in range(_STEPS):
        features = prior.features(shapes, theta)
        kernels = parts(features, features)
        deviation = log_ms - features.mean
        if step in _LEARNS:
            amplitudes = learned(kernels, deviation, belief)
        covariance = np.tensordot(amplitudes.parts, kernels, 1) + amplitudes.noise * np.eye(len(shapes))
        factor: Floats = cholesky(covariance, lower=True)
        solved: Floats = cho_solve((factor, True), deviation)
        if step < _STEPS - 1:
            theta = _moved(prior, theta, features, solved, amplitudes, damped=step > 1)
    return Process(prior, theta, amplitudes, features, factor, solved)


def _moved(
    prior: Prior, theta: Mapping[str, Floats], seen: Features, solved: Floats, amplitudes: Amplitudes, damped: bool
) -> dict[str, Floats]:
    """The law's parameters a Gauss-Newton step on: their posterior mean under the present linearization."""
    shared, own = amplitudes.parts[:2]
    every = seen.law.T @ solved
    moved = {}
    for name, point in theta.items():
        mine = seen.format == name
        target = prior.formats[name].theta + prior.formats[name].root @ (
            shared * every + own * seen.law[mine].T @ solved[mine]
        )
        moved[name] = point + (0.6 if damped else 1.0) * np.clip(target - point, -_LONGEST, _LONGEST)
    return moved


def _empty(prior: Prior) -> Features:
    nothing = np.zeros(0, dtype=np.int64)
    names = np.zeros(0, dtype=str)
    gemms = Gemms(names, names, nothing, nothing, nothing)
    shapes = Shapes(gemms, prior.shapes(gemms).work, np.zeros((0, len(prior.sources.tables))))
    return prior.features(shapes, prior.start())
