"""Which points of the merged front are measured next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..problem import spread
from .merged import picked, thinned
from .scale import Scale

FloatArray = NDArray[np.float64]
_CANDIDATES = 400  # points of the merged front that are looked at for one round
_HOPELESS = 3.0  # times the quality of the worst float network


def hopeless_beyond(scale: Scale, worst_float: float) -> float:
    """Foretold quality beyond which a genome counts as destroyed by its formats.

    Losses saturate (an error cannot exceed chance) and a power law does not, so what it foretells between a working and
    a destroyed network is too good by far: of a front's fewest bits point after point would be measured in vain. Beyond
    the middle between the largest float network and the worst uniform configuration on it, and beyond three times the
    worst float network seen, a point is measured only when nothing else promises hypervolume.

    Args:
        scale: of the baselines.
        worst_float: quality of the worst float network seen.
    """
    return max((scale.float_quality + scale.worst) / 2, _HOPELESS * worst_float)


def selected(
    values: FloatArray, free: NDArray[np.bool_], known: FloatArray, scale: Scale, count: int, best: int, limit: float
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
        limit: foretold quality beyond which points come last (``hopeless_beyond``).

    Returns:
        Indices of points, in the order of choice.
    """
    indices = thinned(np.flatnonzero(free), _CANDIDATES)
    if count <= 0 or not len(indices):
        return []
    found = [int(index) for index in indices[np.argsort(values[indices, 0], kind="stable")[:best]]]
    for hopeful in (True, False):
        rest = np.array([i for i in indices if i not in found and (values[i, 0] <= limit) == hopeful], dtype=np.int64)
        if len(found) >= count or not len(rest):
            continue
        volume = np.vstack([scale(known), scale(values[found])]) if found else scale(known)
        taken = picked(scale(values[rest]), volume, scale.reference, count - len(found))
        found += [int(rest[index]) for index in taken]
    if len(found) < count:
        covered = ~free
        covered[found] = True
        found += spread(values[:, 1], count - len(found), covered)
    return found
