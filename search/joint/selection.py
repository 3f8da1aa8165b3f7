"""Which points of the merged front are measured next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..problem import spread
from .merged import picked, thinned
from .scale import Scale

FloatArray = NDArray[np.float64]
_CANDIDATES = 400  # points of the merged front that are looked at for one round


def selected(
    values: FloatArray, free: NDArray[np.bool_], known: FloatArray, scale: Scale, count: int, best: int
) -> list[int]:
    """Points of the merged front to measure: the best in quality, then those that promise most hypervolume.

    Where nothing more is promised, points that are farthest in price from what is measured fill the round.

    Args:
        values: objectives of the merged front [points, objectives].
        free: which of them were not measured yet [points].
        known: objectives of what is measured [genomes, objectives].
        scale: of the objectives.
        count: at most so many.
        best: so many of them by quality alone.

    Returns:
        Indices of points, in the order of choice.
    """
    indices = thinned(np.flatnonzero(free), _CANDIDATES)
    if count <= 0 or not len(indices):
        return []
    found = [int(index) for index in indices[np.argsort(values[indices, 0], kind="stable")[:best]]]
    rest = np.array([index for index in indices if index not in found], dtype=np.int64)
    volume = np.vstack([scale(known), scale(values[found])]) if found else scale(known)
    taken = picked(scale(values[rest]), volume, scale.reference, count - len(found))
    found += [int(rest[index]) for index in taken]
    if len(found) < count:
        covered = ~free
        covered[found] = True
        found += spread(values[:, 1], count - len(found), covered)
    return found
