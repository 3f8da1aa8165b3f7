"""Pareto filters over measured points."""

from __future__ import annotations

import numpy as np


def non_dominated(points: np.ndarray) -> np.ndarray:
    """Which rows no other row dominates; every objective is minimised.

    Row a dominates row b if a is nowhere greater and somewhere smaller. Equal rows do not dominate each other, and a
    row with NaN is never on the front.

    Args:
        points: float array [points, objectives].

    Returns:
        Boolean array [points].

    Complexity O(n^2 m), vectorised over the rows that are still alive; searches measure tens to hundreds of points.
    """
    alive: np.ndarray = ~np.isnan(points).any(axis=1)
    for row in range(len(points)):
        if not alive[row]:
            continue
        worse = (points >= points[row]).all(axis=1) & (points > points[row]).any(axis=1)
        alive &= ~worse
    return alive


def knee(points: np.ndarray) -> int:
    """Index of the row farthest below the chord between the ends of a two-objective front.

    Both columns are scaled to [0, 1] first; a positive second column that spans more than a decade (an error that
    falls exponentially with the bits) is taken in logarithms, as people plot it.

    Args:
        points: float array [points, 2] of mutually non-dominated rows: price, quality.

    Returns:
        The index of the row.
    """
    points = points.astype(np.float64)
    if points[:, 1].min() > 0 and points[:, 1].max() > 10 * points[:, 1].min():
        points = np.column_stack([points[:, 0], np.log(points[:, 1])])
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / np.where(high > low, high - low, 1.0)
    return int(np.argmin(scaled.sum(axis=1)))
