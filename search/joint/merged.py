r"""The front of fronts: what of many architectures' fronts no point of any of them dominates.

With :math:`F_a` the front of architecture a, the merged front is the set of minima of their union,

.. math:: F = \min \bigcup_a F_a .

It is exact: a point that another one of its own architecture dominates is dominated in the union too, so nothing is
lost by solving architecture by architecture, and as minima of a union are minima of the union of minima, fronts can be
merged in any order and one after the other. Of two equal points the one that came first is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import moocore
import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from ..allocation import hypervolume

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True)
class Merged:
    """The front of fronts, by rising first price.

    Attributes:
        member: which front each point is of: int64 [points].
        row: its row there: int64 [points].
        values: objectives, all minimised: float64 [points, objectives]; the first is the quality.
    """

    member: IntArray
    row: IntArray
    values: FloatArray

    def __len__(self) -> int:
        """How many points."""
        return len(self.row)

    def share(self, fronts: int) -> IntArray:
        """How many points each front contributes: int64 [fronts]."""
        return np.bincount(self.member, minlength=fronts).astype(np.int64)


def merge(fronts: Sequence[FloatArray]) -> Merged:
    """Merge fronts.

    Args:
        fronts: objectives of the points of each [points, objectives]; they need not be free of dominated points, and
            may be empty. Objectives of two points count as equal where they are.

    Returns:
        The points that none dominates, each pair of equal ones once.

    Raises:
        InvalidInput: fronts of different objectives, or NaN.
    """
    widths = {each.shape[1] for each in fronts}
    if len(widths) > 1 or (widths and min(widths) < 2):
        raise InvalidInput(f"fronts have {sorted(widths)} objectives; all must have the same ones, at least two")
    counts = [len(each) for each in fronts]
    table = np.concatenate(fronts) if sum(counts) else np.zeros((0, widths.pop() if widths else 2))
    if np.isnan(table).any():
        raise InvalidInput("a front holds NaN; leave points out that were not priced or foretold")
    member = np.repeat(np.arange(len(counts)), counts)
    row = np.concatenate([np.arange(count) for count in counts]) if counts else np.zeros(0, dtype=np.int64)
    keep = np.asarray(moocore.is_nondominated(table), dtype=bool) if len(table) else np.zeros(0, dtype=bool)
    kept = np.flatnonzero(keep)
    order = kept[np.lexsort((row[kept], member[kept], *table[kept].T[::-1], table[kept, 1]))]
    return Merged(member[order].astype(np.int64), row[order].astype(np.int64), table[order])


def gaps(fronts: Sequence[FloatArray], merged: FloatArray) -> FloatArray:
    r"""How far each front is from the merged one, in units of its extent; 0 where it contributes: [fronts].

    .. math:: g_a = \min_{x \in F_a} \max_{y \in F} \min_j \frac{x_j - y_j}{r_j}

    with r the extent of F: the least shift of the front's best point after which no point of F dominates it strictly.
    Infinite for an empty front. The fitness of architectures, whichever part of the front they are good for. Long
    fronts are thinned evenly to 256 points.
    """
    if not len(merged):
        return np.zeros(len(fronts))
    merged = thinned(merged)
    extent = np.ptp(merged, axis=0)
    scale = np.where(extent > 0, extent, 1.0)
    found = np.full(len(fronts), np.inf)
    for index, front in enumerate(map(thinned, fronts)):
        if len(front):
            shifts = ((front[:, None, :] - merged[None]) / scale).min(axis=2).max(axis=1)
            found[index] = max(0.0, float(shifts.min()))
    return found


def thinned(points: NDArray[_T], most: int = 256) -> NDArray[_T]:
    """At most so many rows, spread evenly over their order."""
    if len(points) <= most:
        return points
    return points[np.unique(np.linspace(0, len(points) - 1, most).astype(np.int64))]


def picked(candidates: FloatArray, measured: FloatArray, reference: FloatArray, count: int) -> list[int]:
    """Greedy choice of the candidates that promise most hypervolume beyond what was measured.

    After each pick the candidate counts as measured, so that the next one is elsewhere on the front (the greedy
    algorithm is within 1 - 1/e of the best set: the hypervolume is submodular; Ulrich and Thiele 2012).

    Args:
        candidates: objectives [candidates, objectives].
        measured: likewise.
        reference: [objectives]; what does not dominate it counts nothing.
        count: at most so many.

    Returns:
        Indices in the order of picking; fewer where no candidate adds anything.
    """
    found: list[int] = []
    known, free = measured, np.ones(len(candidates), dtype=bool)
    volume = hypervolume(known, reference) if len(known) else 0.0
    while len(found) < count and free.any():
        gains = np.array(
            [
                hypervolume(np.vstack([known, candidates[index]]), reference) - volume if free[index] else -1.0
                for index in range(len(candidates))
            ]
        )
        best = int(np.argmax(gains))
        if gains[best] <= 1e-12:
            break
        found.append(best)
        free[best] = False
        known = np.vstack([known, candidates[best]])
        volume += float(gains[best])
    return found
