"""The exact front of an additive table: the optimum under the constraints, then points spread over the front.

The fronts hold every non-dominated configuration of the table, not only those on the convex hull, which is all that
weighted sums reach (49 of 638 for a published ResNet-50 latency front). Points are taken farthest first in price (T. F.
Gonzalez, Clustering to minimize the maximum intercluster distance, 1985): any number of them is spread evenly.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..groups import IntArray
from .limits import FloatArray
from .repair import BoolArray
from .tables import TableProposer


class ExactFront(TableProposer):
    """Points of the exact fronts of every table against every price objective, in turn.

    Args:
        problem: the problem; its proxies are the tables until ``use`` gives another one.
        seed: not used; nothing is random here.
    """

    name = "exact_front"

    def candidates(self) -> Iterator[tuple[IntArray, str]]:
        """The optimum of every table under the constraints, then one point of every front after the other."""
        proxies, metrics = list(self.source.sensitivities), self.problem.price_objectives
        if self.problem.constraints:
            for proxy in proxies:
                yield self.solved(proxy, self.problem.constraints), f"budget:{proxy}"
        lists = [self._spread(proxy, metric) for proxy in proxies for metric in metrics]
        while lists:
            for each in list(lists):
                found = next(each, None)
                if found is None:
                    lists.remove(each)
                else:
                    yield found

    def _spread(self, proxy: str, metric: str) -> Iterator[tuple[IntArray, str]]:
        front = self.source.front(proxy, metric)
        if not len(front):
            return
        genes = self.groups.contract(front)
        taken = np.array([not self.unseen(row) for row in genes])
        for index in farthest_first(self.problem.totals(front, metric), taken):
            yield self.within(genes[index], metric), f"{self.name}:{proxy}:{metric}"


def farthest_first(values: FloatArray, covered: BoolArray) -> Iterator[int]:
    """Indices of points, each the farthest from all covered or yielded before; the first if none is.

    Args:
        values: [points].
        covered: [points].

    Yields:
        Indices, until every value is covered.
    """
    distance = np.full(len(values), np.inf)
    for value in np.unique(values[covered]):
        distance = np.minimum(distance, np.abs(values - value))
    while True:
        best = int(np.argmax(distance))
        if distance[best] <= 0:
            return
        yield best
        distance = np.minimum(distance, np.abs(values - values[best]))
