r"""What candidates are worth, from all that speaks of them: shrinkage of measured values towards foretold ones.

Of many candidates measured on the same few samples the best owes part of its lead to these samples (the winner's
curse). The surrogate foretells each candidate from the *others*, and further samples tell more. With values relative to
the median of the candidates near the best, :math:`t_i` the true one, and on the set s, whose samples may be of another
kind than those of other sets (other photographs), :math:`t_{is}`:

.. math:: t_{is} \sim N(t_i, \omega^2), \qquad x_{is} \sim N(t_{is}, \nu_s^2), \qquad p_i \sim N(t_{i1}, \tau^2)

where x is measured and p foretold; the surrogate has learnt from the first set alone. The posterior mean is the
precision-weighted mean: first of :math:`p_i` and :math:`x_{i1}`, then of this and the other sets, each with
:math:`\omega^2` more (James and Stein 1961; Efron and Morris 1973, JASA 68:117, with the known noise of every
measurement). Its parts, shared by all candidates, because a noise estimated for each alone is smallest for the lucky:

- :math:`\nu_s`, the noise of *paired* comparison: what all candidates find hard cancels in a ranking, so it is the
  standard error of the residuals of every candidate about its mean times the common profile of the samples,
- :math:`\omega`, by how much the sets disagree beyond that noise. The larger it is, the more equally sets count,
  however many samples they have (DerSimonian and Laird 1986, random effects),
- :math:`\tau^2`, the variance of :math:`p_i - x_{i1}` plus :math:`\nu_1^2`: neighbours of a candidate share its luck on
  the first set, so nothing is subtracted for the noise of :math:`x_{i1}`, as it would be were p independent of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..measurement import Measurement

FloatArray = NDArray[np.float64]
_NEAR = 3.0  # times the best: candidates that levels and spreads are taken from
_FEW = 4  # near candidates below which no spread is estimated
_LEAST = 1e-6  # relative variance: nothing is certain


def posterior_means(foretold: FloatArray | None, sets: Sequence[FloatArray]) -> FloatArray:
    """Posterior means of candidates, relative to their level.

    Args:
        foretold: excess over the float model by a prediction that did not see the candidate: [candidates], or ``None``.
        sets: excess of every sample, one array for each set: [candidates, samples], at least one set; the first is
            the one that the predictions were fitted to.

    Returns:
        [candidates]; smaller is better. Only their order and ratios mean something.
    """
    means = [each.mean(axis=1) for each in sets]
    near = _near(means)
    relative = [each / _level(each[near]) for each in means]
    noise = [_paired_noise(each[near], mean[near]) for each, mean in zip(sets, means, strict=True)]
    value, variance = relative[0], max(noise[0], _LEAST)
    if foretold is not None and near.sum() >= _FEW:
        told = foretold / _level(foretold[near])
        error = variance + max(_spread(told[near], relative[0][near]), _LEAST)
        value, variance = (told / error + value / variance) / (1 / error + 1 / variance), 1 / (1 / error + 1 / variance)
    between = _disagreement([each[near] for each in relative], noise)
    weights = [1 / (each + between) for each in (variance, *(max(one, _LEAST) for one in noise[1:]))]
    posterior: FloatArray = np.average(np.stack([value, *relative[1:]]), axis=0, weights=np.array(weights))
    return posterior


def excess(found: Sequence[Measurement], base: Measurement) -> FloatArray:
    """What every sample loses against the float model: [candidates, samples]; of perplexities the logarithm."""
    return np.array([each.values for each in found], dtype=np.float64) - np.array(base.values, dtype=np.float64)


def excess_foretold(base: Measurement, qualities: Sequence[float]) -> FloatArray:
    """Foretold qualities as excess over the float model, on the scale whose mean over samples is taken."""
    values = np.array([*qualities, base.value], dtype=np.float64)
    if base.metric == "perplexity":
        values = np.log(np.maximum(values, 1e-300))
    told: FloatArray = values[:-1] - values[-1]
    return told


def _near(means: Sequence[FloatArray]) -> NDArray[np.bool_]:
    """Candidates within a factor of the best in some set; all where that says nothing."""
    near = np.zeros(len(means[0]), dtype=bool)
    for each in means:
        best = float(each.min())
        near |= each <= _NEAR * best if best > 0 else each <= np.median(each)
    return near


def _level(values: FloatArray) -> float:
    """What values are told relative to: positive."""
    middle = float(np.median(np.abs(values)))
    return middle if middle > 0 else max(float(np.abs(values).max()), 1e-300)


def _paired_noise(samples: FloatArray, means: FloatArray) -> float:
    """Variance of a relative mean in comparisons: [candidates, samples] and their means -> a number."""
    count = samples.shape[1]
    if count < 2:
        return 1.0
    level = _level(means)
    profile = samples.mean(axis=0) / level
    residual = samples - means[:, None] / max(float(means.mean()), 1e-12 * level) * profile * level
    return float(np.mean((residual / level) ** 2) / (count - 1))


def _disagreement(relative: Sequence[FloatArray], noise: Sequence[float]) -> float:
    """Variance of the sets about what they agree on, beyond their noise; 0 for a single set or few candidates."""
    if len(relative) < 2 or len(relative[0]) < _FEW:
        return 0.0
    found = [
        max(0.0, _spread(one, other) - noise[first] - noise[first + 1]) / 2
        for first, (one, other) in enumerate(pairwise(relative))
    ]
    return float(np.mean(found))


def _spread(one: FloatArray, other: FloatArray) -> float:
    """Variance of the relative difference of two lists, whose levels may differ."""
    gap = 2 * (one - other) / np.maximum(np.abs(one) + np.abs(other), 1e-12)
    return float(np.var(gap, ddof=1))
