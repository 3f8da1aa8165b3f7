r"""Latency of every architecture of a space on a new device, from a few measurements there and all of other devices.

The log milliseconds of the known devices, X [architectures, devices], are split into what a ridge regression on the
encodings of the architectures explains and the rest: H and R = X - H. The first is free of the noise of measuring; the
rest holds that noise, and what some devices share without the encoding telling it. With the singular value
decompositions of both (centred), a known device d is a vector of loadings :math:`\lambda_d` on factors F, and the new
device is

.. math:: \log t(x) = c + F(x)\,\lambda + \varepsilon,\quad \varepsilon \sim N(0, \sigma^2)

The prior of its loadings says that it is either only of the kind of the known devices, or like one of them, more or
less:

.. math:: \lambda \sim \tfrac12 N(\bar\lambda, S) + \tfrac12\,
    \mathrm{mean}_{d,\tau}\, N(\lambda_d, \tau^2 S),\quad S = \mathrm{diag}\,\mathrm{var}_d(\lambda_d),\ \tau \in T

each with the loadings of the rest as they are, and once more with hardly any. Every component with every noise level is
a Gaussian, so the posterior is a mixture in closed form, weighted by marginal likelihoods; its first two moments give
prediction and interval. Which architectures to measure is chosen before anything is measured: greedily, so that the
posterior variance of differences between architectures, averaged over the space, falls most (I-optimal design; for a
Gaussian it does not depend on what will be measured).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.stats import norm

from ...errors import InvalidInput
from ..gemm import Prediction

Floats = NDArray[np.float64]
#: Variances of one measurement's log: 1.7 to 17 %.
_NOISES = (0.0003, 0.001, 0.003, 0.01, 0.03)
#: How close to a known device, in standard deviations between devices.
_TAUS = (0.15, 0.3, 0.6)
#: Noise that the choice of architectures reckons with: 10 % error.
_DESIGN_NOISE = 0.01
#: Standard deviation of the constant: a device may be 20 times faster or slower than the known ones.
_CONSTANT = 3.0
#: Share of the variance of the rest that is left where a device is taken to share little of it.
_LITTLE = 0.01
_RIDGE = 1.0
_LARGEST = 4000  # rows that stand for the space when a design is judged


@dataclass(frozen=True)
class _Component:
    """A Gaussian over the whitened loadings (constant first): centre, variances, log weight."""

    centre: Floats
    variances: Floats
    log_weight: float


@dataclass(frozen=True)
class DeviceTransfer:
    """What is known before a new device is measured.

    Attributes:
        mean: log ms of the average known device [architectures].
        factors: float64 [architectures, 1 + factors]: the constant, then the factors times the standard deviation of
            their loadings, so that the prior of all loadings is standard normal.
        known: loadings of the known devices in these units [devices, 1 + factors].
        smooth: how many of the first columns are the constant and what the encodings explain.
    """

    mean: Floats
    factors: Floats
    known: Floats
    smooth: int

    @staticmethod
    def of(known_ms: Floats, encodings: Floats | None = None) -> DeviceTransfer:
        """What the known devices tell.

        Args:
            known_ms: milliseconds [architectures, devices].
            encodings: of the architectures [architectures, entries], with the products that matter (latency is taken
                as linear in them); ``None`` takes all of X as explained.

        Raises:
            InvalidInput: fewer than two devices, a time that is not positive and finite, or other shapes.
        """
        known_ms = np.asarray(known_ms, dtype=np.float64)
        if known_ms.ndim != 2 or known_ms.shape[1] < 2:
            raise InvalidInput(f"known latencies have shape {known_ms.shape}; give [architectures, devices >= 2]")
        if not (np.isfinite(known_ms) & (known_ms > 0)).all():
            raise InvalidInput("known latencies must be positive and finite milliseconds for every architecture")
        if encodings is not None and (encodings.ndim != 2 or len(encodings) != len(known_ms)):
            raise InvalidInput(f"encodings have shape {encodings.shape}; give [{len(known_ms)}, entries]")
        logs = np.log(known_ms)
        centred = logs - logs.mean(axis=0)
        explained = centred if encodings is None else _explained(encodings, centred)
        scores, loadings = _factors(explained)
        average, spread = loadings.mean(axis=0), loadings.std(axis=0)
        blocks = [np.full((len(logs), 1), _CONSTANT), scores * spread]
        known = [np.zeros((len(loadings), 1)), (loadings - average) / np.where(spread > 0, spread, 1.0)]
        if encodings is not None:
            rest, loaded = _factors(centred - explained)
            size = np.sqrt((loaded**2).mean(axis=0))
            blocks.append(rest * size)
            known.append(loaded / size)
        return DeviceTransfer(logs.mean() + scores @ average, np.hstack(blocks), np.hstack(known), 1 + scores.shape[1])

    def choose(self, count: int, candidates: NDArray[np.int64] | None = None, seed: int = 0) -> NDArray[np.int64]:
        """Which architectures to measure on the new device.

        Args:
            count: how many.
            candidates: indices to choose from; all if ``None``. A random thousand is as good and faster.
            seed: of the sample of architectures that stands for the space.

        Returns:
            Indices, the most telling first.

        Raises:
            InvalidInput: more are asked for than there are candidates.
        """
        pool = np.arange(len(self.mean)) if candidates is None else np.asarray(candidates, dtype=np.int64)
        if not 0 < count <= len(pool):
            raise InvalidInput(f"count={count} of {len(pool)} candidates; ask for 1 to {len(pool)}")
        rows = np.random.default_rng(seed).permutation(len(self.mean))[:_LARGEST]
        judged = self.factors[rows] - self.factors[rows].mean(axis=0)
        importance = judged.T @ judged / len(rows)
        covariance = np.eye(self.factors.shape[1])
        offered, chosen = self.factors[pool], list[int]()
        for _ in range(count):
            projected = offered @ covariance
            variance = np.einsum("ij,ij->i", projected, offered) + _DESIGN_NOISE
            gain = np.einsum("ij,ij->i", projected @ importance, projected) / variance
            gain[chosen] = -1.0
            best = int(np.argmax(gain))
            chosen.append(best)
            covariance = covariance - np.outer(projected[best], projected[best]) / variance[best]
        return np.asarray(pool[chosen], dtype=np.int64)

    def predict(self, measured: NDArray[np.int64], ms: Floats, coverage: float = 0.9) -> Prediction:
        """Latency of every architecture on the new device.

        Args:
            measured: indices of the architectures that were measured.
            ms: their milliseconds.
            coverage: of the intervals, for a new measurement of an architecture.

        Returns:
            ms and interval of all architectures [architectures].

        Raises:
            InvalidInput: nothing was measured, or a time is not positive and finite.
        """
        ms = np.asarray(ms, dtype=np.float64)
        if len(measured) == 0 or len(measured) != len(ms) or not (np.isfinite(ms) & (ms > 0)).all():
            raise InvalidInput(f"{len(measured)} architectures and {len(ms)} times; give one positive time for each")
        loadings, covariance, noise = self._posterior(np.asarray(measured), np.log(ms) - self.mean[measured])
        centre = self.mean + self.factors @ loadings
        variance = np.einsum("ij,ij->i", self.factors @ covariance, self.factors) + noise
        margin = norm.ppf(0.5 + coverage / 2) * np.sqrt(variance)
        return Prediction(np.exp(centre), np.exp(centre - margin), np.exp(centre + margin), coverage)

    def _posterior(self, measured: NDArray[np.int64], residual: Floats) -> tuple[Floats, Floats, float]:
        """Mean and covariance of the loadings, and the mean noise, over all components."""
        rows = self.factors[measured]
        evidence, means, covariances, noises = [], [], [], []
        for component in self._components():
            left = rows * component.variances
            rest = residual - rows @ component.centre
            for noise in _NOISES:
                factor = cho_factor(left @ rows.T + noise * np.eye(len(rows)), lower=True)
                half = solve_triangular(factor[0], rest, lower=True)
                evidence.append(component.log_weight - 0.5 * half @ half - np.log(np.diag(factor[0])).sum())
                means.append(component.centre + left.T @ cho_solve(factor, rest))
                covariances.append(np.diag(component.variances) - left.T @ cho_solve(factor, left))
                noises.append(noise)
        weights = np.exp(np.array(evidence) - max(evidence))
        weights /= weights.sum()
        mean = weights @ np.array(means)
        apart = np.array(means) - mean
        covariance = np.einsum("c,cij->ij", weights, np.array(covariances)) + (apart.T * weights) @ apart
        return mean, covariance, float(weights @ np.array(noises))

    def _components(self) -> Iterator[_Component]:
        width = self.factors.shape[1]
        rest = np.arange(width) >= self.smooth
        shares = (1.0, _LITTLE) if rest.any() else (1.0,)
        each = 0.5 / len(shares)
        for share in shares:
            keeps = np.where(rest, share, 1.0)
            yield _Component(np.zeros(width), keeps, float(np.log(each)))
            for device in self.known:
                centre = np.where(rest & (share < 1.0), 0.0, device)
                for tau in _TAUS:
                    variances = np.where(np.arange(width) > 0, tau**2, 1.0) * keeps
                    yield _Component(centre, variances, float(np.log(each / (len(self.known) * len(_TAUS)))))


def _explained(encodings: Floats, centred: Floats) -> Floats:
    """Ridge regression of every column on the encodings."""
    x = encodings - encodings.mean(axis=0)
    return np.asarray(x @ np.linalg.solve(x.T @ x + _RIDGE * np.eye(x.shape[1]), x.T @ centred), dtype=np.float64)


def _factors(centred: Floats) -> tuple[Floats, Floats]:
    """Scores [architectures, factors] of unit variance and loadings [devices, factors]; factors of no size left out."""
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    used = singular > 1e-9 * max(singular[0], 1e-300)
    root = np.sqrt(len(centred))
    return left[:, used] * root, right[used].T * singular[used] / root
