"""Between two points of a front: a tighter bound and more points by branching on the steps of the hull.

The relaxation of an interval of budgets takes a fraction of one step. In every configuration the group of that step
chooses something cheaper than the step's end, or not: both cases have a relaxation of their own, whose hull is the old
one with the steps of one group left out or taken for granted. The smaller of the two bounds every configuration, and
the vertices of both are configurations. Branching goes on where the best point known is not within the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .hulls import HullSteps
from .problem import BoolArray, FloatArray, IntArray, Problem

_DEPTH = 20


@dataclass(frozen=True, eq=False)
class Node:
    """A part of the configurations, with its hull near the interval.

    Args:
        forced: Group to choice where it differs from the state at the beginning of the window.
        group: Group of every step that is left in the window.
        after: Choice that each takes.
        cost: Cost of the vertices, one more than steps.
        loss: Loss of the vertices.
        least: Group to the smallest cost that a choice must have in this part.
        most: Group to the cost that a choice must stay below.
    """

    forced: dict[int, int]
    group: IntArray
    after: IntArray
    cost: FloatArray
    loss: FloatArray
    least: dict[int, float]
    most: dict[int, float]

    def below(self, cost: FloatArray) -> FloatArray:
        """Lower bound of the loss of this part at all budgets just below some costs; infinity where it has nothing."""
        return np.asarray(np.where(cost > self.cost[0], np.interp(cost, self.cost, self.loss), np.inf))


@dataclass(frozen=True, eq=False)
class Found:
    """A configuration inside the interval: the state at the beginning of the window, then these choices.

    Args:
        cost: Its cost.
        loss: Its loss.
        node: The part that it is a vertex of.
        taken: How many steps of the part it takes.
    """

    cost: float
    loss: float
    node: Node
    taken: int

    def apply(self, state: IntArray) -> IntArray:
        """The configuration.

        Args:
            state: The hull's configuration at the beginning of the window.

        Returns:
            A new array.
        """
        picked = state.copy()
        for group, choice in self.node.forced.items():
            picked[group] = choice
        picked[self.node.group[: self.taken]] = self.node.after[: self.taken]
        return picked


Corner = tuple[float, float]
"""Cost and loss."""
Chain = list[tuple[Found, float]]
"""Points, each with a lower bound of the loss at all budgets just below it."""


class NarrowWindow(Exception):
    """The steps given do not reach across the interval."""


class Interval:
    """Budgets from the cost of a known point up to (not including) `end`.

    Args:
        problem: The first row is the cost.
        allowed: Shape [groups, choices].
        steps: All hull steps.
        window: The steps `window[0] .. window[1] - 1` are looked at.
        state: The hull's configuration before the window, shape [groups].
        corner: Cost and loss of the hull's vertices in the window, one more than steps.
        begin: Cost and loss of the point on the left.
        end: Where the interval ends.
        least: From the loss of a point to the smallest bound that it is good enough for.
        shrink: A point also serves budgets down to this fraction of its cost.
    """

    def __init__(
        self,
        problem: Problem,
        allowed: BoolArray,
        steps: HullSteps,
        window: tuple[int, int],
        state: IntArray,
        corner: tuple[FloatArray, FloatArray],
        begin: Corner,
        end: float,
        least: Callable[[float], float],
        shrink: float,
    ) -> None:
        self.loss, self.cost, self.allowed, self.state = problem.loss, problem.rows[0], allowed, state
        self.begin, self.end, self.least, self.shrink = begin, end, least, shrink
        part = slice(*window)
        self.open_left, self.open_right = window[0] > 0, window[1] < len(steps.group)
        self.steepest = float(steps.slope[part][0]) if self.open_left else -np.inf
        self.flattest = float(steps.slope[part][-1]) if self.open_right else 0.0
        self.root = Node({}, steps.group[part], steps.after[part], *corner, {}, {})

    def fill(self) -> tuple[Chain, float]:
        """Finds points so that every budget of the interval is covered, as far as the depth of the branching goes.

        Returns:
            The points, cost ascending, each with a lower bound of all budgets just below it; and that bound for the
            end.

        Raises:
            NarrowWindow: If a part reaches beyond the window.
        """
        start = self.root.below(np.array([self.end]))
        return self._branch(self.begin, self.end, [self.root], start, _DEPTH)

    def _cover(
        self, begin: Corner, end: float, nodes: list[Node], at_end: FloatArray, points: list[Found], depth: int
    ) -> tuple[Chain, float]:
        """Walks through points from the left, skips those not needed, and branches where none is good enough."""
        if not points:
            return self._branch(begin, end, nodes, at_end, depth)
        costs = self.shrink * np.array([point.cost for point in points])
        bounds = np.column_stack([np.array([node.below(costs) for node in nodes]), at_end])
        lows = bounds.min(axis=0).tolist()
        chain: Chain = []
        left, at = begin, 0
        while True:
            while at < len(points) and points[at].loss >= left[1]:  # branching has found something better
                at += 1
            enough, first = self.least(left[1]), at
            while at < len(points) and lows[at] >= enough:
                at += 1
            if at > first:
                # parts whose bound was good enough were left out: nothing more than that is proven
                chain.append((points[at - 1], min(enough, lows[at - 1])))
                left = (points[at - 1].cost, points[at - 1].loss)
                continue
            if at == len(points) and lows[at] >= enough:
                return chain, enough
            target = float(costs[at]) if at < len(points) else end
            inner, low = self._branch(left, target, nodes, bounds[:, at], depth)
            chain += inner
            if inner:
                left = (inner[-1][0].cost, inner[-1][0].loss)
            if at == len(points):
                return chain, low
            if points[at].loss < left[1]:
                chain.append((points[at], low))
                left = (points[at].cost, points[at].loss)
            at += 1

    def _branch(
        self, begin: Corner, end: float, nodes: list[Node], at_end: FloatArray, depth: int
    ) -> tuple[Chain, float]:
        """Splits the part whose bound is worst at the end of a gap."""
        enough = self.least(begin[1])
        at = int(at_end.argmin())
        low = min(enough, float(at_end[at]))
        node = nodes[at]
        step = int(np.searchsorted(node.cost, end, side="left")) - 1
        if end <= begin[0] or low >= enough or depth == 0 or not 0 <= step < len(node.group):
            return [], low
        children = self._children(node, step)
        found: list[Found] = []
        for child in children:
            if (child.cost[0] > self.begin[0] and self.open_left) or (child.cost[-1] < self.end and self.open_right):
                raise NarrowWindow
            inside = np.flatnonzero((child.cost > begin[0]) & (child.cost < end) & (child.loss < begin[1]))
            found.extend(Found(float(child.cost[i]), float(child.loss[i]), child, i) for i in inside.tolist())
        points: list[Found] = []
        for point in sorted(found, key=lambda point: (point.cost, point.loss)):
            if not points or point.loss < points[-1].loss:
                points.append(point)
        open_ = [i for i in np.flatnonzero(at_end < enough).tolist() if i != at]
        new = [float(child.below(np.array(end))) for child in children]
        parts = [*(nodes[i] for i in open_), *children]
        return self._cover(begin, end, parts, np.append(at_end[open_], new), points, depth - 1)

    def _children(self, node: Node, step: int) -> list[Node]:
        """The group of a step takes something cheaper than the end of the step, or not."""
        group = int(node.group[step])
        edge = float(self.cost[group, node.after[step]])
        least, most = node.least.get(group, -np.inf), node.most.get(group, np.inf)
        costs = self.cost[group]
        if not (self.allowed[group] & (costs > self.cost[group, self._before(node, step)]) & (costs < edge)).any():
            return self._cut(node, group, step, edge)
        parts = ((least, edge), (edge, most))
        offered = [self.allowed[group] & (costs >= low) & (costs < high) for low, high in parts]
        return [self._restrict(node, group, own, *part) for own, part in zip(offered, parts, strict=True) if own.any()]

    def _before(self, node: Node, step: int) -> int:
        """The choice that a step leaves."""
        group = node.group[step]
        earlier = np.flatnonzero(node.group[:step] == group)
        return int(node.after[earlier[-1]]) if len(earlier) else node.forced.get(int(group), int(self.state[group]))

    def _cut(self, node: Node, group: int, step: int, edge: float) -> list[Node]:
        """Both parts if no choice lies between the ends of the step: the later steps of its group go, or the others."""
        mine = node.group == group
        rises, falls = np.diff(node.cost), np.diff(node.loss)
        taken = mine.copy()
        taken[step + 1 :] = False
        late = mine ^ taken
        late[step] = True
        first, forced = int(node.after[step]), node.forced
        parts = (
            (late, forced, 0.0, -float(falls[late].sum()), node.least, {**node.most, group: edge}),
            (taken, {**forced, group: first}, float(rises[taken].sum()), 0.0, {**node.least, group: edge}, node.most),
        )
        return [
            Node(
                choices,
                node.group[~left_out],
                node.after[~left_out],
                np.cumsum(np.concatenate([[node.cost[0] + rise], rises[~left_out]])),
                _falling_to(node.loss[-1] + missed, falls[~left_out]),
                least,
                most,
            )
            for left_out, choices, rise, missed, least, most in parts
        ]

    def _restrict(self, node: Node, group: int, offered: BoolArray, low: float, high: float) -> Node:
        """The part of a node in which a group has only some choices."""
        cost = self.cost[group]
        own = _own_hull(self.loss[group], cost, offered)
        before = node.forced.get(group, int(self.state[group]))
        early = 0  # steps that are taken before the window begins
        while early + 1 < len(own) and own[early + 1][1] < self.steepest:
            early += 1
        first = own[early][0]
        late = [step for step in own[early + 1 :] if step[1] <= self.flattest]
        after = np.array([step[0] for step in late], dtype=np.int64)
        slope = np.array([step[1] for step in late])
        rise = np.diff(cost[np.append(first, after)])
        keep = node.group != group
        old_last = before if keep.all() else int(node.after[~keep][-1])
        new_last = int(after[-1]) if len(after) else first
        rises, falls = np.diff(node.cost)[keep], np.diff(node.loss)[keep]
        place = np.searchsorted(falls / rises, slope)
        rises = np.insert(rises, place, rise)
        falls = np.insert(falls, place, slope * rise)
        return Node(
            {**node.forced, group: first},
            np.insert(node.group[keep], place, group),
            np.insert(node.after[keep], place, after),
            np.cumsum(np.append(node.cost[0] + cost[first] - cost[before], rises)),
            _falling_to(node.loss[-1] + float(self.loss[group, new_last] - self.loss[group, old_last]), falls),
            {**node.least, group: low},
            {**node.most, group: high},
        )


def _own_hull(loss: FloatArray, cost: FloatArray, offered: BoolArray) -> list[tuple[int, float]]:
    """The hull of one group: its choices from the cheapest on, with the slope of the step to each."""
    choices = np.flatnonzero(offered)
    points = sorted(zip(cost[choices].tolist(), loss[choices].tolist(), choices.tolist(), strict=True))
    hull: list[tuple[float, float, int, float]] = []
    for at, value, choice in points:
        slope = -np.inf
        while hull:
            slope = (value - hull[-1][1]) / (at - hull[-1][0]) if at > hull[-1][0] else np.inf
            if slope > hull[-1][3]:
                break
            hull.pop()
        if not hull:
            slope = -np.inf
        if slope < 0:
            hull.append((at, value, choice, slope))
    return [(choice, slope) for _, _, choice, slope in hull]


def _falling_to(end: float, falls: FloatArray) -> FloatArray:
    """Losses before, between and after some falls, summed from the small end: they keep their relative accuracy."""
    return np.asarray(end - np.append(np.cumsum(falls[::-1])[::-1], 0.0))
