"""A selection of the front with a proof, for instances whose whole front is out of reach.

The relaxation `h(B)` (the lower convex hull of the sums) bounds the smallest possible loss at every budget `B` from
below. Three certificates are offered for a tolerance `eps`:

- "pareto": for every configuration some point has at most `1 + eps` times its cost and `1 + eps` times its loss (an
  eps-Pareto set: C. H. Papadimitriou and M. Yannakakis, FOCS 2000);
- "loss": at every budget the best point within it has at most `1 + eps` times the smallest possible loss;
- "range": the same with `eps` times the difference of the largest and the smallest loss of the hull.

The vertices of the hull lie on the front. Between neighbours that are too far apart there are configurations close to
the hull: the left vertex without the step that separates them, plus a run of the following steps and one more. What is
left is closed by branching (`branching`), and where that takes too long by exact allocations.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...errors import InvalidInput
from .branching import Interval, NarrowWindow
from .hulls import HullSteps, hull_steps, prefixes
from .knapsack import solve_knapsack
from .problem import BoolArray, FloatArray, IntArray, Problem
from .reduce import undominated
from .sums import compensated_sums

Certificate = Literal["pareto", "loss", "range"]
_WINDOW = 48
_RUN = 64
_CHUNK = 400_000


@dataclass(frozen=True, eq=False)
class CertifiedPoints:
    """A selection of configurations, cost ascending.

    Args:
        picked: Shape [points, groups].
        bound: Lower bound of the loss of every configuration that costs no more, shape [points].
        gap: How far the point can be from the front, in units of the tolerance, shape [points].
        proven: The tolerance that holds between the points as well.
    """

    picked: IntArray
    bound: FloatArray
    gap: FloatArray
    proven: float


def certified_points(
    problem: Problem, tolerance: float, certificate: Certificate, deadline: float, max_points: int
) -> CertifiedPoints:
    """Selects points so that the tolerance is proven at every budget.

    Args:
        problem: The first row is the cost.
        tolerance: Positive.
        certificate: What is to be proven.
        deadline: Value of `time.perf_counter` at which to stop.
        max_points: Most points.

    Returns:
        The selection; `proven` can exceed the tolerance if time or points ran out.

    Raises:
        InvalidInput: If the tolerance cannot be relative because a loss (or cost) on the hull is not positive.
    """
    return _Selection(problem, tolerance, certificate, deadline, max_points).run()


class _Hull:
    """The lower convex hull of all sums: its vertices after every step, and the bound that it gives."""

    def __init__(self, problem: Problem, steps: HullSteps, certificate: Certificate, tolerance: float) -> None:
        every = np.arange(len(steps.start))
        base = float(problem.rows[0][every, steps.start].sum())
        best = steps.start.copy()
        best[steps.group] = steps.after
        self.cost = np.concatenate([[base], base + np.cumsum(steps.cost)])
        rising = np.concatenate([[0.0], np.cumsum(-steps.loss[::-1])])[::-1]  # summed from the small end
        self.loss = rising + float(problem.loss[every, best].sum())
        self.relative = certificate != "range"
        if self.relative and min(self.loss[-1], self.cost[0] if certificate == "pareto" else 1.0) <= 0:
            raise InvalidInput(
                f"certificate {certificate!r} needs positive values, but the smallest loss is {self.loss[-1]:.6g} "
                f"and the smallest cost {self.cost[0]:.6g}: use 'range' (or 'loss' if only a cost is not positive)"
            )
        self.range = float(self.loss[0] - self.loss[-1]) or 1.0
        self.tolerance = tolerance
        self.shrink = 1.0 / (1.0 + tolerance) if certificate == "pareto" else 1.0  # a point serves budgets from here on

    def bound(self, cost: FloatArray) -> FloatArray:
        """Smallest loss that is possible at these costs, from below."""
        return np.asarray(np.interp(cost, self.cost, self.loss))

    def unit(self, bound: FloatArray) -> FloatArray:
        return bound if self.relative else np.full_like(bound, self.range)

    def least(self, loss: float) -> float:
        """The smallest bound that a loss is good enough for."""
        return loss / (1.0 + self.tolerance) if self.relative else loss - self.tolerance * self.range

    def reach(self, loss: FloatArray) -> FloatArray:
        """Up to which cost a point with this loss is within the tolerance of the bound."""
        least = loss / (1.0 + self.tolerance) if self.relative else loss - self.tolerance * self.range
        cost = np.interp(least, self.loss[::-1], self.cost[::-1])
        return np.asarray(np.where(least <= self.loss[-1], np.inf, cost))


class _Selection:
    """Points are written as (t, run, extra): the first t steps, then `run` steps after step t, then one more step."""

    def __init__(
        self, problem: Problem, tolerance: float, certificate: Certificate, deadline: float, max_points: int
    ) -> None:
        self.problem, self.deadline, self.max_points = problem, deadline, max_points
        self.allowed: BoolArray = undominated(problem.loss, problem.rows[:1], problem.allowed)
        self.steps = hull_steps(problem.loss, problem.rows[0], self.allowed)
        self.hull = _Hull(problem, self.steps, certificate, tolerance)

    def run(self) -> CertifiedPoints:
        hull = self.hull
        count = len(self.steps.group)
        codes = np.zeros((count + 1, 3), dtype=np.int64)
        codes[:, 0] = np.arange(count + 1)
        cost, loss = hull.cost, hull.loss
        wide = np.flatnonzero(hull.reach(loss[:-1]) < cost[1:] * hull.shrink)
        if len(wide):
            extra, extra_cost, extra_loss = self._between(wide)
            codes = np.concatenate([codes, extra])
            cost, loss = np.concatenate([cost, extra_cost]), np.concatenate([loss, extra_loss])
        order = np.lexsort((loss, cost))
        falling = loss[order]
        better = np.ones(len(order), dtype=np.bool_)
        better[1:] = falling[1:] < np.minimum.accumulate(falling)[:-1]
        order = order[better]
        kept, gaps = self._thin(cost[order], loss[order])
        picked = self._configurations(codes[order[kept]])
        return self._close(picked, [kept.index(gap) for gap in gaps])

    def _between(self, wide: IntArray) -> tuple[IntArray, FloatArray, FloatArray]:
        """Configurations near the hull inside the given segments that are within the tolerance."""
        steps, hull = self.steps, self.hull
        count = len(steps.group)
        previous = _previous(steps.group)
        room = steps.cost[wide]
        runs = np.searchsorted(hull.cost, hull.cost[wide + 1] + room, side="left") - (wide + 1)
        following = np.full(count, count)
        following[previous[previous >= 0]] = np.flatnonzero(previous >= 0)
        runs = np.clip(np.minimum(runs, following[wide] - wide - 1), 1, _RUN)
        found: list[tuple[IntArray, FloatArray, FloatArray]] = []
        ends = np.cumsum(runs)
        begin = 0
        while begin < len(wide):
            stop = max(begin + 1, int(np.searchsorted(ends, (ends[begin - 1] if begin else 0) + _CHUNK // _WINDOW)))
            at = np.repeat(wide[begin:stop], runs[begin:stop])
            run = np.arange(len(at)) - np.repeat(ends[begin:stop] - runs[begin:stop], runs[begin:stop])
            run += ends[begin - 1] if begin else 0
            found.append(self._candidates(at, run, previous, following))
            begin = stop
        codes, cost, loss = (np.concatenate(part) for part in zip(*found, strict=True))
        return codes, cost, loss

    def _candidates(
        self, at: IntArray, run: IntArray, previous: IntArray, following: IntArray
    ) -> tuple[IntArray, FloatArray, FloatArray]:
        hull, count = self.hull, len(self.steps.group)
        extra = np.arange(_WINDOW)
        step = (at + run)[:, None] + extra  # extra 0: only the run
        inside = step < count
        step = np.minimum(step, count - 1)
        cost = hull.cost[at] + hull.cost[np.minimum(at + 1 + run, count)] - hull.cost[at + 1]
        loss = hull.loss[at] + hull.loss[np.minimum(at + 1 + run, count)] - hull.loss[at + 1]
        costs = cost[:, None] + np.where(extra > 0, self.steps.cost[step], 0.0)
        losses = loss[:, None] + np.where(extra > 0, self.steps.loss[step], 0.0)
        inside &= (costs < hull.cost[at + 1][:, None]) & (costs > hull.cost[at][:, None])
        inside &= (at + run < following[at])[:, None]
        inside &= (extra == 0) | ((previous[step] <= (at + run)[:, None]) & (previous[step] != at[:, None]))
        bound = hull.bound(costs)
        inside &= losses <= bound + 0.5 * hull.tolerance * hull.unit(bound)
        node, w = np.nonzero(inside)
        codes = np.stack([at[node], run[node], w], axis=1)
        return codes, costs[node, w], losses[node, w]

    def _thin(self, cost: FloatArray, loss: FloatArray) -> tuple[list[int], list[int]]:
        """As few points as cover every budget, and those after which a gap is left."""
        reach = np.searchsorted(cost * self.hull.shrink, self.hull.reach(loss), side="right") - 1
        following = np.maximum(reach, np.arange(len(cost)))
        kept, gaps = [0], []
        jumps = following.tolist()
        while kept[-1] < len(cost) - 1:
            here = kept[-1]
            if jumps[here] <= here:
                gaps.append(here)
                kept.append(here + 1)
            else:
                kept.append(jumps[here])
        return kept, gaps

    def _configurations(self, codes: IntArray) -> IntArray:
        order = np.argsort(codes[:, 0], kind="stable")
        picked = np.empty((len(codes), len(self.problem.loss)), dtype=np.int32, order="F")
        picked[order] = prefixes(self.steps.start, self.steps.group, self.steps.after, codes[order, 0])
        point = np.repeat(np.arange(len(codes)), codes[:, 1])
        taken = (
            codes[point, 0] + 1 + np.arange(len(point)) - np.repeat(np.cumsum(codes[:, 1]) - codes[:, 1], codes[:, 1])
        )
        picked[point, self.steps.group[taken]] = self.steps.after[
            taken
        ]  # in the order of the steps: the last one stays
        point = np.flatnonzero(codes[:, 2])
        taken = codes[point].sum(axis=1)
        picked[point, self.steps.group[taken]] = self.steps.after[taken]
        return picked

    def _close(self, picked: IntArray, gaps: list[int]) -> CertifiedPoints:
        """Fills the gaps that are left, then says what is proven."""
        cost = compensated_sums(self.problem.rows[0], picked)
        loss = compensated_sums(self.problem.loss, picked)
        below = self.hull.bound(cost * self.hull.shrink)  # of all budgets that a point does not serve, on its left
        more: list[IntArray] = []
        bounds: list[float] = []
        for gap in gaps:
            if len(cost) + len(more) >= self.max_points or time.perf_counter() > self.deadline:
                break
            begin, end = (float(cost[gap]), float(loss[gap])), float(cost[gap + 1]) * self.hull.shrink
            configurations, lows, last = self._fill(begin, end)
            more += configurations
            bounds += lows
            below[gap + 1] = max(below[gap + 1], last)
        if more:
            extra = np.stack(more).astype(np.int32)
            picked = np.concatenate([picked, extra])
            cost = np.concatenate([cost, compensated_sums(self.problem.rows[0], extra)])
            loss = np.concatenate([loss, compensated_sums(self.problem.loss, extra)])
            below = np.concatenate([below, bounds])
        order = np.lexsort((loss, cost))
        below = np.maximum.accumulate(below[order][::-1])[::-1]  # a bound holds for every smaller budget too
        falling = loss[order]
        better = np.append(True, falling[1:] < np.minimum.accumulate(falling)[:-1])
        order, below = order[better], below[better]
        picked, cost, loss = picked[order], cost[order], loss[order]
        return self._certificate(picked, cost, loss, below)

    def _fill(self, begin: tuple[float, float], end: float) -> tuple[list[IntArray], list[float], float]:
        """Points inside a gap, a bound of the budgets below each, and one for the end of the gap."""
        hull, steps = self.hull, self.steps
        margin = 2.0 * (end - begin[0])
        while True:
            margin *= 4.0
            low = max(int(np.searchsorted(hull.cost, begin[0] - margin)) - 1, 0)
            high = min(int(np.searchsorted(hull.cost, end + margin)) + 1, len(steps.group))
            state = steps.start.copy()
            state[steps.group[:low]] = steps.after[:low]
            interval = Interval(
                self.problem,
                self.allowed,
                steps,
                (low, high),
                state,
                (hull.cost[low : high + 1], hull.loss[low : high + 1]),
                begin,
                end,
                hull.least,
                hull.shrink,
            )
            try:
                chain, last = interval.fill()
            except NarrowWindow:
                continue
            break
        points: list[IntArray] = []
        bounds: list[float] = []
        left = begin
        for found, bound in [*chain, (None, last)]:
            if bound < hull.least(left[1]) and left[0] < (end if found is None else found.cost * hull.shrink):
                inner, lows, bound = self._exact(left, end if found is None else found.cost * hull.shrink)
                points += inner
                bounds += lows
            if found is not None:
                points.append(found.apply(state))
                bounds.append(bound)
                left = (found.cost, found.loss)
        return points, bounds, bound

    def _exact(self, begin: tuple[float, float], end: float) -> tuple[list[IntArray], list[float], float]:
        """Closes a gap from the right: the optimum below its end, then the cheapest configuration nearly as good."""
        loss, cost = self.problem.loss, self.problem.rows[0]
        points: list[IntArray] = []
        bounds: list[float] = []
        clear = 2.0**-42 * float(np.abs(cost).max(axis=1).sum())  # of the rounding of sums
        limit = end
        share = self.hull.tolerance / 4 if self.hull.relative else 0.0
        while True:
            answer = solve_knapsack(
                loss, cost, limit - clear, self.allowed, gap=share, deadline=self.deadline, steps=self.steps
            )
            low = answer.base + answer.bound
            bounds.append(low)
            covered = low >= self.hull.least(begin[1]) or limit - clear <= begin[0]
            if covered or answer.picked is None or time.perf_counter() > self.deadline:
                break
            target = low + self.hull.tolerance * float(self.hull.unit(np.array([low]))[0])
            cheapest = solve_knapsack(cost, loss, target, self.allowed, deadline=self.deadline)
            picked = answer.picked if cheapest.picked is None else cheapest.picked
            points.append(picked)
            limit = float(compensated_sums(cost, picked[None])[0]) * self.hull.shrink
            if limit - clear <= begin[0]:
                bounds.append(low)
                break
        return points[::-1], bounds[:0:-1], bounds[0]

    def _certificate(self, picked: IntArray, cost: FloatArray, loss: FloatArray, below: FloatArray) -> CertifiedPoints:
        """What is proven: the bound just below the next point holds at the cost of this one too."""
        bound = self.hull.bound(cost)
        holds = cost[:-1] < cost[1:] * self.hull.shrink
        bound[:-1] = np.where(holds, np.maximum(bound[:-1], below[1:]), bound[:-1])
        bound = np.minimum(bound, loss)
        between = np.where(holds, (loss[:-1] - below[1:]) / self.hull.unit(below[1:]), 0.0)
        worst = float(between.max(initial=0.0))
        # what is proven is the tolerance itself unless points or time ran out (up to the rounding of the bounds)
        proven = self.hull.tolerance if worst <= self.hull.tolerance * (1 + 1e-9) + 1e-12 else worst
        return CertifiedPoints(picked, bound, (loss - bound) / self.hull.unit(bound), proven)


def _previous(group: IntArray) -> IntArray:
    """Index of the step before in the same group, or -1."""
    order = np.argsort(group, kind="stable")
    found = np.full(len(group), -1, dtype=np.int64)
    same = group[order][1:] == group[order][:-1]
    found[order[1:][same]] = order[:-1][same]
    return found
