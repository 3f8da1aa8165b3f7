r"""A Gaussian process over genomes: categorical answers, and numbers that describe the network.

.. math:: k(x, x') = v_1 \exp\Big(-\sum_j w_j [x_j \ne x'_j]\Big)
          + v_2 \exp\Big(-\tfrac12 \sum_f s_f (\phi_f(x) - \phi_f(x'))^2\Big) + \sigma^2 [x = x'] + c

The first term is the overlap kernel with a weight for every question (B. Ru et al., CoCaBO, ICML 2020, equation 5,
exponentiated); a product over questions, it holds interactions of every order. A question that does not exist in a
genome has an answer of its own. The second is over features, where there are any: parameters, operations, scores of
proxies, latency. The constant c stands for a mean that is not known (Rasmussen and Williams 2006, Gaussian Processes
for Machine Learning, section 2.7). Weights, variances and noise are at the maximum of the posterior under log-normal
priors, found by L-BFGS with the exact gradient (equation 5.9 there).

Quality is learned on the scale :math:`y = \log(e - e_{\min} + \delta)` with :math:`\delta` a share of the distance from
the best to the median, so that a network that does not train at all does not hide the differences among good ones; the
share is the one with the largest evidence, the Jacobian counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

from ..surrogate.threads import one_thread
from .decisions import FloatArray

IntArray = NDArray[np.int64]

_SHARES = (1.0, 4.0, 16.0)
_PRIOR = {
    "weight": (-1.0, 1.0),
    "scale": (-2.0, 1.0),
    "overlap": (-1.0, 1.0),
    "smooth": (0.0, 1.0),
    "noise": (-3.5, 1.0),
}
"""Mean and standard deviation of the log; the target is standardized, the features are."""
_STEPS = 30
_JITTER = 1e-6
_CONSTANT = 4.0  # variance of the unknown mean: results cluster at good networks, so their average is none of the prior


@dataclass(frozen=True, eq=False)
class Inputs:
    """Genomes as the process sees them.

    Attributes:
        answers: codes of the answers, -1 where a question does not exist: int64 [n, questions].
        features: numbers that describe them, standardized over the space; no columns where there are none: float64
            [n, features].
    """

    answers: IntArray
    features: FloatArray

    def __len__(self) -> int:
        """Genomes."""
        return len(self.answers)

    def rows(self, index: Sequence[int] | range | IntArray) -> Inputs:
        """Some of them."""
        return Inputs(self.answers[index], self.features[index])

    def joined(self, more: Inputs) -> Inputs:
        """These and more."""
        return Inputs(np.concatenate([self.answers, more.answers]), np.concatenate([self.features, more.features]))


@dataclass(frozen=True, eq=False)
class Warp:
    """The scale y = (log(e - low) - mean) / deviation."""

    low: float
    mean: float
    deviation: float

    @staticmethod
    def of(values: FloatArray, share: float) -> Warp:
        """The scale of some values [n]."""
        best = float(values.min())
        low = best - max(share * (float(np.median(values)) - best), 1e-9 * max(abs(best), 1e-300))
        logs = np.log(values - low)
        return Warp(low, float(logs.mean()), max(float(logs.std()), 1e-12))

    def forward(self, values: FloatArray) -> FloatArray:
        """Onto the scale; what lies below it (a pending value) counts as nearly the least."""
        found: FloatArray = (np.log(np.maximum(values - self.low, 1e-300)) - self.mean) / self.deviation
        return found

    def backward(self, values: FloatArray) -> FloatArray:
        """From the scale."""
        found: FloatArray = self.low + np.exp(self.mean + self.deviation * values)
        return found

    def log_jacobian(self, values: FloatArray) -> float:
        """Sum of log dy/de."""
        return float(-np.log(values - self.low).sum() - len(values) * np.log(self.deviation))


@dataclass(frozen=True, eq=False)
class MixedProcess:
    """A fitted process.

    Attributes:
        warp: the scale.
        hyper: logs of the overlap weights [questions], feature scales [features], two variances and the noise.
        inputs: what it was fitted to.
    """

    warp: Warp
    hyper: FloatArray
    inputs: Inputs
    _factor: tuple[FloatArray, bool]
    _alpha: FloatArray

    @staticmethod
    @one_thread()
    def fit(inputs: Inputs, values: FloatArray, hyper: MixedProcess | None = None) -> MixedProcess:
        """Fit.

        Args:
            inputs: genomes [n].
            values: their quality [n].
            hyper: take weights, variances, noise and the share of the scale from this fit (of the same questions).
        """
        if hyper is None:
            fits = []
            for share in _SHARES:
                warp = Warp.of(values, share)
                found, cost = _maximum(inputs, warp.forward(values))
                fits.append((cost - warp.log_jacobian(values), warp, found))
            _, warp, logs = min(fits, key=lambda each: each[0])
        else:
            warp, logs = hyper.warp, hyper.hyper
            if values.min() <= warp.low:
                warp = Warp.of(values, _SHARES[1])
        covariance = _covariance(inputs, inputs, logs) + _nugget(logs) * np.eye(len(inputs))
        factor = cho_factor(covariance, lower=True)
        return MixedProcess(warp, logs, inputs, factor, cho_solve(factor, warp.forward(values)))

    def predict(self, inputs: Inputs) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation on the scale, the noise included: [n] and [n].

        What is asked for is the value that a measurement will record, not one averaged over repeated measurements.
        """
        cross = self._cross(inputs)
        explained = solve_triangular(self._factor[0], cross.T, lower=True, check_finite=False)
        variance = self._prior_variance() - (explained**2).sum(axis=0)
        return cross @ self._alpha, np.sqrt(np.maximum(variance, 0) + _nugget(self.hyper))

    def sample(self, inputs: Inputs, draw: np.random.Generator, count: int) -> FloatArray:
        """Joint draws of recorded values on the scale: [count, n]."""
        cross = self._cross(inputs)
        explained = solve_triangular(self._factor[0], cross.T, lower=True, check_finite=False)
        covariance = _covariance(inputs, inputs, self.hyper) - explained.T @ explained
        root = np.linalg.cholesky(covariance + _nugget(self.hyper) * np.eye(len(inputs)))
        found: FloatArray = cross @ self._alpha + draw.normal(size=(count, len(inputs))) @ root.T
        return found

    def _cross(self, inputs: Inputs) -> FloatArray:
        return _covariance(inputs, self.inputs, self.hyper)

    def _prior_variance(self) -> float:
        overlap, smooth = np.exp(self.hyper[-3:-1])
        return float(_CONSTANT + overlap + (smooth if self.inputs.features.shape[1] else 0.0))


def _nugget(hyper: FloatArray) -> float:
    return float(np.exp(hyper[-1]) + _JITTER)


def _covariance(left: Inputs, right: Inputs, hyper: FloatArray) -> FloatArray:
    """Of the noiseless values: [n, m]."""
    questions = left.answers.shape[1]
    overlap, smooth = np.exp(hyper[-3:-1])
    found: FloatArray = overlap * np.exp(-_distance(left.answers, right.answers, np.exp(hyper[:questions]))) + _CONSTANT
    if left.features.shape[1]:
        root = np.exp(0.5 * hyper[questions:-3])
        found += smooth * np.exp(-0.5 * _squared(left.features * root, right.features * root))
    return found


def _distance(left: IntArray, right: IntArray, weights: FloatArray) -> FloatArray:
    """Weighted number of different answers: [n, m]."""
    found = np.zeros((len(left), len(right)))
    for question, weight in enumerate(weights):
        found += weight * (left[:, question][:, None] != right[:, question][None, :])
    return found


def _squared(left: FloatArray, right: FloatArray) -> FloatArray:
    """Squared Euclidean distances: [n, m]."""
    found = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2 * left @ right.T
    squared: FloatArray = np.maximum(found, 0.0)
    return squared


def _prior(questions: int, features: int) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of the logs."""
    kinds = [*["weight"] * questions, *["scale"] * features, "overlap", "smooth", "noise"]
    table = np.array([_PRIOR[kind] for kind in kinds])
    return table[:, 0], table[:, 1]


def _maximum(inputs: Inputs, target: FloatArray) -> tuple[FloatArray, float]:
    """Logs at the maximum of the posterior, and the negative log posterior there."""
    mean, deviation = _prior(inputs.answers.shape[1], inputs.features.shape[1])
    bounds = [(low, high) for low, high in zip(mean - 4 * deviation, mean + 4 * deviation, strict=True)]
    found = minimize(
        negative_log_posterior,
        mean,
        args=(inputs, target),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": _STEPS},
    )
    return found.x, float(found.fun)


def negative_log_posterior(hyper: FloatArray, inputs: Inputs, target: FloatArray) -> tuple[float, FloatArray]:
    """Of the logs [h], up to a constant, with its gradient [h]; features are standardized."""
    questions, size = inputs.answers.shape[1], len(target)
    weights, scales = np.exp(hyper[:questions]), np.exp(hyper[questions:-3])
    overlap, smooth, noise = np.exp(hyper[-3:])
    first = overlap * np.exp(-_distance(inputs.answers, inputs.answers, weights))
    matrix = first + _CONSTANT + (noise + _JITTER) * np.eye(size)
    second = np.zeros_like(first)
    if len(scales):
        root = inputs.features * np.sqrt(scales)
        second = smooth * np.exp(-0.5 * _squared(root, root))
        matrix += second
    factor = cho_factor(matrix, lower=True, check_finite=False)
    alpha = cho_solve(factor, target, check_finite=False)
    slope = cho_solve(factor, np.eye(size), check_finite=False) - np.outer(alpha, alpha)
    gradient = np.zeros_like(hyper)
    along = slope * first
    for question in range(questions):
        codes = inputs.answers[:, question]
        gradient[question] = -0.5 * weights[question] * along[codes[:, None] != codes[None, :]].sum()
    gradient[-3] = 0.5 * along.sum()
    if len(scales):
        along = slope * second
        spread = 2 * (inputs.features**2 * along.sum(axis=1)[:, None]).sum(axis=0)
        spread -= 2 * np.einsum("nf,nf->f", inputs.features, along @ inputs.features)
        gradient[questions:-3] = -0.25 * scales * spread
        gradient[-2] = 0.5 * along.sum()
    gradient[-1] = 0.5 * noise * np.trace(slope)
    mean, deviation = _prior(questions, len(scales))
    cost = 0.5 * float(target @ alpha) + float(np.log(np.diag(factor[0])).sum())
    cost += 0.5 * float((((hyper - mean) / deviation) ** 2).sum())
    return cost, gradient + (hyper - mean) / deviation**2
