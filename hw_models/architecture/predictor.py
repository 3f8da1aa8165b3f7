r"""Latency of whole architectures from sampled measurements: a Gaussian process on the log of the milliseconds.

.. math:: \log t(x) \sim \mathrm{GP}\big(\mu,\ a^2\, x \cdot x' / D + b^2 e^{-|x - x'|^2 / 2 D \ell^2} + \sigma^2\big)

on standardized encodings x of D entries (Rasmussen and Williams 2006, equations 2.25, 2.26 and 5.8): a product of
powers of the features, and what that misses. The four parameters maximize the marginal likelihood. Intervals are the
process's own, stretched so that they hold for the measurements when each is left out (in closed form, equations 5.12;
leave-one-out conformal prediction).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from ...errors import InvalidInput
from ..gemm import Prediction

Floats = NDArray[np.float64]
#: More measurements than these make the fit slow without making it better.
LARGEST = 2000
_BOUNDS = ((-4.0, 4.0), (-6.0, 3.0), (-3.0, 3.0), (-6.0, 0.0))
_START = (0.0, -1.0, 0.0, -3.0)


@dataclass(frozen=True)
class ArchitecturePredictor:
    """A fitted predictor; ``ArchitecturePredictor.fit`` makes one.

    Attributes:
        encodings: float64 [measurements, entries] of what was measured, standardized.
        shift: of the encodings.
        scale: of the encodings.
        mean: of the log ms.
        parameters: logarithms of a, b, l and sigma.
        factor: lower Cholesky factor of the covariance of the measurements.
        solved: covariance^-1 (log ms - mean).
        residuals: absolute leave-one-out errors over their standard deviations, sorted.
        error: leave-one-out mean absolute percentage error.
    """

    encodings: Floats
    shift: Floats
    scale: Floats
    mean: float
    parameters: Floats
    factor: Floats
    solved: Floats
    residuals: Floats
    error: float

    @staticmethod
    def fit(encodings: Floats, ms: Floats) -> ArchitecturePredictor:
        """Fit to measurements.

        Args:
            encodings: float64 [measurements, entries].
            ms: milliseconds [measurements].

        Raises:
            InvalidInput: fewer than 4 or more than ``LARGEST`` measurements, or values that are not finite.
        """
        encodings, ms = np.asarray(encodings, dtype=np.float64), np.asarray(ms, dtype=np.float64)
        if encodings.ndim != 2 or ms.shape != (len(encodings),):
            raise InvalidInput(f"encodings {encodings.shape} and times {ms.shape}; give [n, entries] and [n]")
        if not 4 <= len(ms) <= LARGEST:
            raise InvalidInput(f"{len(ms)} measurements; give 4 to {LARGEST} (a random subset of more)")
        if not (np.isfinite(encodings).all() and np.isfinite(ms).all() and (ms > 0).all()):
            raise InvalidInput("encodings must be finite, times positive and finite milliseconds")
        shift, spread = encodings.mean(axis=0), encodings.std(axis=0)
        scale = np.where(spread > 1e-12, spread, 1.0)
        x, mean = (encodings - shift) / scale, float(np.log(ms).mean())
        target = np.log(ms) - mean
        dot, square = _products(x, x)
        parameters = np.asarray(
            minimize(_evidence, _START, (dot, square, target), jac=True, bounds=_BOUNDS, method="L-BFGS-B").x
        )
        factor = cholesky(_kernel(parameters, dot, square) + math.exp(2 * parameters[3]) * np.eye(len(x)), lower=True)
        solved = cho_solve((factor, True), target)
        precision = np.diag(cho_solve((factor, True), np.eye(len(x))))
        left_out = solved / precision
        return ArchitecturePredictor(
            x,
            shift,
            scale,
            mean,
            parameters,
            factor,
            solved,
            np.sort(np.abs(left_out) * np.sqrt(precision)),
            float(np.abs(np.expm1(-left_out)).mean()),
        )

    def predict(self, encodings: Floats, coverage: float = 0.9) -> Prediction:
        """Milliseconds with intervals for a new measurement of each architecture [architectures]."""
        mean, deviation = self._posterior(encodings)
        rank = min(len(self.residuals), math.ceil(coverage * (len(self.residuals) + 1))) - 1
        margin = self.residuals[rank] * deviation
        return Prediction(np.exp(mean), np.exp(mean - margin), np.exp(mean + margin), coverage)

    def next_samples(self, candidates: Floats, count: int) -> NDArray[np.int64]:
        """Which of the candidates to measure next: each time the most uncertain, given the ones before.

        Raises:
            InvalidInput: more are asked for than there are candidates.
        """
        if not 0 < count <= len(candidates):
            raise InvalidInput(f"count={count} of {len(candidates)} candidates; ask for 1 to {len(candidates)}")
        x = (np.asarray(candidates, dtype=np.float64) - self.shift) / self.scale
        cross = solve_triangular(self.factor, _kernel(self.parameters, *_products(self.encodings, x)), lower=True)
        noise = math.exp(2 * self.parameters[3])
        spare = _variance(self.parameters, x) - (cross**2).sum(axis=0)
        rows, chosen = np.zeros((count, len(x))), list[int]()
        for step in range(count):
            best = int(np.argmax(np.where(np.isin(np.arange(len(x)), chosen), -np.inf, spare)))
            column = _kernel(self.parameters, *_products(x, x[best : best + 1]))[:, 0] - cross.T @ cross[:, best]
            column = column - rows[:step].T @ rows[:step, best]
            rows[step] = column / math.sqrt(max(spare[best], 0.0) + noise)
            spare = spare - rows[step] ** 2
            chosen.append(best)
        return np.array(chosen, dtype=np.int64)

    def _posterior(self, encodings: Floats) -> tuple[Floats, Floats]:
        x = (np.asarray(encodings, dtype=np.float64) - self.shift) / self.scale
        cross = _kernel(self.parameters, *_products(self.encodings, x))
        left = solve_triangular(self.factor, cross, lower=True)
        spare = np.maximum(_variance(self.parameters, x) - (left**2).sum(axis=0), 0.0)
        return self.mean + cross.T @ self.solved, np.sqrt(spare + math.exp(2 * self.parameters[3]))


def _products(one: Floats, other: Floats) -> tuple[Floats, Floats]:
    """Inner products and squared distances of all pairs, per entry."""
    entries = one.shape[1]
    dot = one @ other.T / entries
    lengths = (one**2).sum(axis=1)[:, None] / entries + (other**2).sum(axis=1)[None] / entries
    return dot, np.maximum(lengths - 2 * dot, 0.0)


def _kernel(parameters: Floats, dot: Floats, square: Floats) -> Floats:
    linear, smooth, length, _ = parameters
    return np.asarray(math.exp(2 * linear) * dot + math.exp(2 * smooth) * np.exp(-0.5 * square * math.exp(-2 * length)))


def _variance(parameters: Floats, x: Floats) -> Floats:
    return np.asarray(math.exp(2 * parameters[0]) * (x**2).mean(axis=1) + math.exp(2 * parameters[1]))


def _evidence(parameters: Floats, dot: Floats, square: Floats, target: Floats) -> tuple[float, Floats]:
    """Negative log marginal likelihood and its gradient in the four logarithms."""
    linear, smooth, length, noise = parameters
    first = math.exp(2 * linear) * dot
    second = math.exp(2 * smooth) * np.exp(-0.5 * square * math.exp(-2 * length))
    identity = math.exp(2 * noise) * np.eye(len(target))
    factor = cholesky(first + second + identity, lower=True)
    solved = cho_solve((factor, True), target)
    inner = cho_solve((factor, True), np.eye(len(target))) - np.outer(solved, solved)
    value = 0.5 * target @ solved + np.log(np.diag(factor)).sum()
    slopes = (2 * first, 2 * second, second * square * math.exp(-2 * length), 2 * identity)
    return float(value), np.array([0.5 * (inner * slope).sum() for slope in slopes])
