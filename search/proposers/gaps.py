"""The largest gaps of the measured front: where an undiscovered point has most room.

A gap lies between two neighbours on the measured front; its size is the rectangle (price step) x (step of log quality)
in which an undiscovered point could lie (the rectangle rule of K. Klamroth, J. Tind, M. M. Wiecek, Unbiased
approximation in multicriteria optimization, 2003). The points of the exact front nearest to the middles of the gaps are
proposed, the largest gap first, then those nearest to their quarters.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..groups import IntArray
from ..pareto import non_dominated
from ..rank_statistics import spearman
from .limits import FloatArray
from .tables import TableProposer


class Gaps(TableProposer):
    """Front points in the gaps, for every price objective in turn.

    Args:
        problem: the problem; until ``use`` gives a table, the proxy is taken that has ranked the measurements best.
        seed: not used; nothing is random here.
    """

    name = "gaps"

    def candidates(self) -> Iterator[tuple[IntArray, str]]:
        """One gap of every price after the other; before two results are known, front points from the cheapest on."""
        proxy = self.trusted()
        lists = [self._in_gaps(proxy, metric) for metric in self.problem.price_objectives]
        while lists:
            for each in list(lists):
                found = next(each, None)
                if found is None:
                    lists.remove(each)
                else:
                    yield found

    def trusted(self) -> str:
        """The table with the highest rank correlation with what was measured; ties: the first."""
        quality = np.array([each.quality for each in self.told])

        def trust(proxy: str) -> float:
            scores = self.source.loss(proxy)
            sums = np.array([scores[np.arange(len(each.choice)), each.choice].sum() for each in self.told])
            found = float(spearman(sums, quality, np.ones((1, len(quality))))[0])
            return found if np.isfinite(found) else 0.0

        return max(self.source.sensitivities, key=trust) if len(self.told) > 2 else self.first()

    def _in_gaps(self, proxy: str, metric: str) -> Iterator[tuple[IntArray, str]]:
        front = self.source.front(proxy, metric)
        if not len(front):
            return
        genes = self.groups.contract(front)
        free = np.array([self.unseen(row) for row in genes])
        genes, prices = genes[free], self.problem.totals(front[free], metric)
        for index in self._by_gap(prices, self.problem.price_objectives.index(metric)):
            yield self.within(genes[index], metric), f"gap:{proxy}:{metric}"

    def _by_gap(self, prices: FloatArray, objective: int) -> list[int]:
        """Indices into the prices of front points [points], those in the largest gaps first."""
        known = [(each.costs[objective], np.log(each.quality)) for each in self.told if each.quality > 0]
        points = np.array(known).reshape(len(known), 2)
        points = np.unique(points[non_dominated(points)], axis=0)
        if len(points) < 2:
            return list(range(len(prices)))
        sizes = np.abs(np.diff(points, axis=0)).prod(axis=1)
        order: list[int] = []
        for share in (0.5, 0.25, 0.75):
            for gap in np.argsort(-sizes, kind="stable"):
                left, right = points[gap, 0], points[gap + 1, 0]
                inside = np.flatnonzero((prices > left) & (prices < right))
                if len(inside):
                    order.append(int(inside[np.argmin(np.abs(prices[inside] - left - share * (right - left)))]))
        return list(dict.fromkeys(order))
