r"""What to measure next: the expected improvement of the front, or of the best configuration, by one more batch.

Only the quality is uncertain; prices are known exactly. On the latent scale (:mod:`.latent`; differences there are
ratios of the excess, so that the fine end of a front counts as much as the coarse one) a candidate has the value
:math:`Z \sim N(\mu, \sigma^2)` and the price vector c. Let :math:`h(p)` be the best latent value measured at prices of
at most p, or the reference. The hypervolume that the candidate adds is an integral over prices of the strip between
the front and Z, and its expectation is taken under the integral:

.. math:: E[\Delta] = \int_{p \ge c} E[(h(p) - Z)^+]\, dp
          = \sum_k v_k(c)\, \big( (h_k - \mu)\, \Phi(u_k) + \sigma\, \varphi(u_k) \big), \quad
          u_k = (h_k - \mu) / \sigma

because h is a step function with the value :math:`h_k` on cell k, of which the volume :math:`v_k(c)` lies at prices of
at least c. For one price the cells are the intervals between the prices of the front, so the sum is exact and has as
many terms as the front has points: the closed form of Emmerich, Deutz and Klinkenberg 2011 (Hypervolume-based expected
improvement, IEEE CEC) with one certain objective. For two or more prices the outer integral is a Monte Carlo mean over
points of the price box, the inner one still exact.

With a constraint only the best feasible quality counts: :math:`E[(h - Z)^+]` with h the best measured (Jones, Schonlau
and Welch 1998, equation 15).

A batch is chosen greedily; each choice is then taken to be measured with the value that is expected of it (the kriging
believer of Ginsbourger, Le Riche and Carraro 2010): the front moves, and what is correlated with it becomes more
certain, so the next choice lies elsewhere.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from ...errors import InvalidInput
from .latent import Latent

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Target = Literal["hypervolume", "best"]
_DRAWS = 4096  # points of the price box
_MARGIN = 0.1  # of the range, between the worst measured and the reference


class Fitting(Protocol):
    """What a batch is chosen by; :class:`Fitted` is one."""

    @property
    def latent(self) -> Latent:
        """The scale."""
        ...

    def latent_moments(self, choices: IntArray) -> tuple[FloatArray, FloatArray]:
        """Mean [n] and covariance [n, n]."""
        ...


def choose_batch(
    fitted: Fitting,
    choices: IntArray,
    costs: FloatArray,
    quality: FloatArray,
    measured_costs: FloatArray,
    count: int,
    *,
    target: Target = "hypervolume",
    seed: int = 0,
) -> IntArray:
    """The configurations of a pool that are worth measuring next.

    Args:
        fitted: the surrogate.
        choices: the pool, different and not measured yet, all feasible: columns of the space [n, sites].
        costs: their prices, in the order of the price objectives: [n, prices].
        quality: what was measured of feasible configurations: [m], m may be 0.
        measured_costs: their prices: [m, prices].
        count: how many to choose.
        target: ``hypervolume`` of quality and prices, or the ``best`` quality alone (a constrained problem).
        seed: of the Monte Carlo points for two or more prices.

    Returns:
        Indices into the pool in the order of choice: up to ``count``. The first is worth most alone.

    Raises:
        InvalidInput: the shapes do not fit, or the target is unknown.
    """
    _check(choices, costs, quality, measured_costs, target)
    count = min(count, len(choices))
    if count <= 0:
        return np.zeros(0, dtype=np.int64)
    mean, covariance = fitted.latent_moments(choices)
    reached = fitted.latent.forward(quality)
    everything = np.concatenate([measured_costs, costs])
    scaled, known = _unit(costs, everything), _unit(measured_costs, everything)
    values = np.concatenate([reached, mean])
    reference = float(values.max() + _MARGIN * max(float(np.ptp(values)), 1e-9))
    generator = np.random.default_rng(seed)
    points = generator.random((_DRAWS, costs.shape[1])) if costs.shape[1] > 1 else None
    chosen: list[int] = []
    for _ in range(count):
        deviation = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        if target == "best":
            gains = expected_excess(np.full(1, reached.min() if len(reached) else reference), mean, deviation)[:, 0]
        elif points is None:
            gains = expected_hypervolume_improvement(
                mean, deviation, scaled[:, 0], known[:, 0], reached, reference, 1.1
            )
        else:
            gains = _sampled_improvement(mean, deviation, scaled, known, reached, reference, points)
        gains[chosen] = -np.inf
        best = int(np.argmax(gains))
        chosen.append(best)
        reached, known = np.append(reached, mean[best]), np.concatenate([known, scaled[best : best + 1]])
        covariance = _believed(covariance, best)
    return np.array(chosen, dtype=np.int64)


def expected_excess(levels: FloatArray, mean: FloatArray, deviation: FloatArray) -> FloatArray:
    """E[(h - Z)+] for normal Z [n] and levels h [k]: [n, k]."""
    gap = levels[None, :] - mean[:, None]
    spread = np.maximum(deviation, 1e-12)[:, None]
    unit = gap / spread
    density = np.exp(-0.5 * unit**2) / np.sqrt(2 * np.pi)
    excess: FloatArray = np.maximum(gap * ndtr(unit) + spread * density, 0.0)
    return excess


def expected_hypervolume_improvement(
    mean: FloatArray,
    deviation: FloatArray,
    costs: FloatArray,
    known_costs: FloatArray,
    known: FloatArray,
    reference: float,
    reference_cost: float,
) -> FloatArray:
    """Exact expected hypervolume improvement of candidates with a normal value and one known price.

    Args:
        mean: of the value, lower is better: [n].
        deviation: its standard deviation: [n].
        costs: price of every candidate: [n].
        known_costs: prices of what was measured: [m], m may be 0.
        known: values of what was measured: [m].
        reference: worst value that counts.
        reference_cost: highest price that counts.

    Returns:
        The expectation: [n].
    """
    order = np.lexsort((known, known_costs))
    starts = np.concatenate([[-np.inf], known_costs[order]])
    ends = np.concatenate([known_costs[order], [np.inf]])
    levels = np.minimum(np.minimum.accumulate(np.concatenate([[reference], known[order]])), reference)
    widths = np.minimum(ends, reference_cost)[None, :] - np.maximum(starts[None, :], costs[:, None])
    improvement: FloatArray = (np.maximum(widths, 0.0) * expected_excess(levels, mean, deviation)).sum(axis=1)
    return improvement


def _sampled_improvement(
    mean: FloatArray,
    deviation: FloatArray,
    costs: FloatArray,
    known_costs: FloatArray,
    known: FloatArray,
    reference: float,
    points: FloatArray,
) -> FloatArray:
    """The same for two or more prices, by a mean over points of the box [0, 1.1]^prices: [n]."""
    box = 1.1 * points
    levels = np.full(len(box), reference)
    for cost, value in zip(known_costs, known, strict=True):
        levels = np.where((box >= cost).all(axis=1), np.minimum(levels, value), levels)
    improvement = np.empty(len(mean))
    for index in range(len(mean)):
        inside = levels[(box >= costs[index]).all(axis=1)]
        excess = expected_excess(inside, mean[index : index + 1], deviation[index : index + 1])
        improvement[index] = excess.sum() / len(box)
    return improvement


def _believed(covariance: FloatArray, chosen: int) -> FloatArray:
    """The covariance after the value of one candidate became known."""
    variance = float(covariance[chosen, chosen])
    if variance <= 1e-18:
        return covariance
    column = covariance[:, chosen]
    left: FloatArray = covariance - np.outer(column, column) / variance
    return left


def _unit(costs: FloatArray, everything: FloatArray) -> FloatArray:
    """Prices as shares of the range of all, 0 the cheapest."""
    low = everything.min(axis=0)
    scaled: FloatArray = (costs - low) / np.maximum(np.ptp(everything, axis=0), 1e-300)
    return scaled


def _check(choices: IntArray, costs: FloatArray, quality: FloatArray, measured_costs: FloatArray, target: str) -> None:
    if target not in ("hypervolume", "best"):
        raise InvalidInput(f"target={target!r}; choose 'hypervolume' or 'best'")
    fits = costs.ndim == 2 and measured_costs.ndim == 2 and costs.shape[1:] == measured_costs.shape[1:]
    if not fits or len(choices) != len(costs) or quality.shape != measured_costs.shape[:1]:
        raise InvalidInput(
            f"choices {choices.shape}, costs {costs.shape}, quality {quality.shape}, measured_costs "
            f"{measured_costs.shape}; expected [n, sites], [n, prices], [m], [m, prices]"
        )
