"""What the latency predictor is compared with: interpolation between neighbours, and boosting without a law."""

from __future__ import annotations

import numpy as np
from bitfront.hw_models.gemm import Gemms, MeasuredGemms
from bitfront.hw_models.predictor.lattice import Axes
from bitfront.hw_models.predictor.surface import on_grid
from sklearn.ensemble import HistGradientBoostingRegressor

_BOOSTING = {
    "max_iter": 400,
    "learning_rate": 0.08,
    "max_leaf_nodes": 47,
    "min_samples_leaf": 10,
    "l2_regularization": 1.0,
    "early_stopping": False,
}


def neighbours(seen: MeasuredGemms, asked: Gemms) -> np.ndarray:
    """AIConfigurator's rule re-made: linear in the time between the nearest measured sizes, one axis after the other.

    At each of the two neighbouring m: at each of the two neighbouring n (one where n itself was measured there),
    linear in k between the nearest measured k of that line; then linear in n; then linear in m. Beyond the last
    neighbour the line through the last two is prolonged, down to the least time that was measured.
    """
    axes = Axes.of(seen.m, seen.n, seen.k)
    times = on_grid(axes, seen, seen.ms)
    along_k: dict[tuple[int, int], np.ndarray] = {}
    asked_k = np.unique(asked.k).astype(float)

    def line(m: int, n: int) -> np.ndarray:
        if (m, n) not in along_k:
            along_k[m, n] = _linear(asked_k, axes.k, times[m, n])
        return along_k[m, n]

    at_k = np.searchsorted(asked_k, asked.k)
    found = np.empty(len(asked))
    for row in range(len(asked)):
        ends_m, share_m = _ends(axes.m, float(asked.m[row]))
        values = []
        for m in ends_m:
            lines = np.flatnonzero((~np.isnan(times[m])).sum(axis=1) > 0)
            ends_n, share_n = _ends(axes.n[lines], float(asked.n[row]))
            low, high = (line(m, lines[end])[at_k[row]] for end in ends_n)
            values.append(low + share_n * (high - low))
        found[row] = values[0] + share_m * (values[1] - values[0])
    return np.maximum(found, seen.ms.min())


def plain_boosting(seen: MeasuredGemms, asked: Gemms, seed: int = 0) -> np.ndarray:
    """Boosting on the logarithms of m, n, k and of the time, with more trees than ours: no law, no further features."""
    model = HistGradientBoostingRegressor(**_BOOSTING, random_state=seed)
    model.fit(_sizes(seen), np.log(seen.ms))
    return np.exp(model.predict(_sizes(asked)))


def _sizes(gemms: Gemms) -> np.ndarray:
    return np.log(np.stack([gemms.m, gemms.n, gemms.k], axis=1).astype(float))


def _ends(axis: np.ndarray, value: float) -> tuple[tuple[int, int], float]:
    """The two lines around a value (the last two beyond the ends) and how far in between it is."""
    if len(axis) == 1:
        return (0, 0), 0.0
    exact = np.flatnonzero(axis == value)
    if len(exact):
        return (int(exact[0]), int(exact[0])), 0.0
    high = int(np.clip(np.searchsorted(axis, value), 1, len(axis) - 1))
    return (high - 1, high), float((value - axis[high - 1]) / (axis[high] - axis[high - 1]))


def _linear(wanted: np.ndarray, axis: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Linear interpolation over the numbers of a line, prolonged at the ends."""
    known = ~np.isnan(values)
    x, y = axis[known], values[known]
    if len(x) == 1:
        return np.full(len(wanted), y[0])
    high = np.clip(np.searchsorted(x, wanted), 1, len(x) - 1)
    return y[high - 1] + (y[high] - y[high - 1]) * (wanted - x[high - 1]) / (x[high] - x[high - 1])
