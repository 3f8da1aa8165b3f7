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
