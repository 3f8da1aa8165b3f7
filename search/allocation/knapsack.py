"""One budget, to proven optimality: Lagrangian reduced costs and a two-list label search over the core.

With the multiplier `lam` of the linear relaxation, let `x0` be the greedy configuration, `room` what it leaves of the
budget, and for every choice

    d[g, j] = loss[g, j] - loss[g, x0_g] + lam (cost[g, j] - cost[g, x0_g])  >= 0,
    w[g, j] = cost[g, j] - cost[g, x0_g].

A configuration that meets the budget has `slack = room - sum w >= 0` and the objective `bound + sum d + lam slack`,
where `bound = loss(x0) - lam room` is the value of the relaxation. So every configuration within `radius` of the bound
uses only choices with `d <= radius`; these are few, and the groups that have any are the core (E. Balas and E. Zemel,
An algorithm for large zero-one knapsack problems, Operations Research 28, 1980).

All configurations within the radius are enumerated up to dominance: two lists of partial configurations ("labels") are
grown from both ends of the core, labels are dropped that another one dominates or whose own relaxation leaves the
radius (D. Pisinger, A minimal algorithm for the multiple-choice knapsack problem, EJOR 83, 1995), and the lists are
joined by binary search (E. Horowitz and S. Sahni, Computing partitions with applications to the knapsack problem, JACM
21, 1974). If the radius holds no configuration, it is proven that the optimum is at least `bound + radius`, and a
larger one is tried; the first radius that holds one ends the search. Everything is vectorised over labels.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from .hulls import HullSteps, hull_steps
from .problem import BoolArray, FloatArray, IntArray

MAX_LABELS = 400_000
_FIRST_ENTRIES = 24
_ROUNDING = 2.0**-50


@dataclass(frozen=True, eq=False)
class SearchOutcome:
    """What a label search found, relative to the relaxation.

    Args:
        picked: Best configuration found, shape [groups]; None if none was (if `complete`, none exists).
        value: Its objective minus `base`.
        bound: Proven lower bound of the objective minus `base`; equals `value` if the search was complete.
        base: Objective of the starting configuration minus `lam room`: the value of the relaxation.
        complete: Nothing better exists.
        core: Groups that had more than one choice left in the last round.
        possible: Choices that a better configuration can use, shape [groups, choices]; None if not known.
    """

    picked: IntArray | None
    value: float
    bound: float
    base: float
    complete: bool
    core: int
    possible: BoolArray | None = None


@dataclass(frozen=True, eq=False)
class _Labels:
    """Partial configurations: weight, reduced cost, and how each was made."""

    weight: FloatArray
    reduced: FloatArray
    history: tuple[tuple[int, IntArray, IntArray], ...] = ()

    def pick(self, label: int, into: IntArray) -> None:
        for group, parent, choice in reversed(self.history):
            into[group] = choice[label]
            label = int(parent[label])


def relaxation(loss: FloatArray, cost: FloatArray, limit: float, steps: HullSteps) -> tuple[IntArray, float, int]:
    """The greedy solution of the linear relaxation.

    Args:
        loss: Shape [groups, choices].
        cost: Shape [groups, choices].
        limit: The budget.
        steps: Hull steps.

    Returns:
        The configuration before the step that breaks the budget, the multiplier (0 if the budget does not bind), and
        the number of steps taken.
    """
    picked = steps.start.copy()
    spent = float(cost[np.arange(len(cost)), picked].sum())
    taken = int(np.searchsorted(np.cumsum(steps.cost) + spent, limit, side="right"))
    picked[steps.group[:taken]] = steps.after[:taken]  # in the order of the steps: the last one of a group stays
    return picked, float(-steps.slope[taken]) if taken < len(steps.slope) else 0.0, taken


def solve_knapsack(
    loss: FloatArray,
    cost: FloatArray,
    limit: float,
    allowed: BoolArray,
    *,
    gap: float = 0.0,
    deadline: float = np.inf,
    max_labels: int = MAX_LABELS,
    steps: HullSteps | None = None,
) -> SearchOutcome:
    """Smallest loss with one choice per group and a summed cost of at most `limit`.

    Args:
        loss: Shape [groups, choices].
        cost: Shape [groups, choices].
        limit: The budget; the cheapest configuration must meet it.
        allowed: Shape [groups, choices].
        gap: Relative gap that is good enough.
        deadline: Value of `time.perf_counter` at which to stop.
        max_labels: Largest list; beyond it the search gives up with what it has.
        steps: The hull steps of these tables, if they are known.

    Returns:
        The best configuration, with a proof if the search was complete.
    """
    groups = len(loss)
    every = np.arange(groups)
    steps = hull_steps(loss, cost, allowed) if steps is None else steps
    picked, lam, _ = relaxation(loss, cost, limit, steps)
    objective = float(loss[every, picked].sum())
    if lam == 0.0:
        return SearchOutcome(picked, 0.0, 0.0, objective, True, 0)
    weight = cost - cost[every, picked][:, None]
    change = loss - loss[every, picked][:, None]
    room = limit - float(cost[every, picked].sum())
    possible = allowed & (weight <= room + most_saved(weight, allowed))
    reduced = np.where(possible, np.maximum(change + lam * weight, 0.0), np.inf)
    base = objective - lam * room
    best, value = picked, lam * room
    best, value = _one_exchange(reduced, weight, lam, room, best, value)
    reduced[every, picked] = 0.0
    entry_group, entry_choice = np.nonzero((reduced <= value) & (weight != 0.0))
    ascending = np.sort(reduced[entry_group, entry_choice])
    count = _FIRST_ENTRIES
    proven = 0.0
    core = 0
    while True:
        if value - proven <= gap * abs(base + value):
            return SearchOutcome(best, value, proven, base, gap == 0.0, core)
        radius = float(ascending[count]) if count < len(ascending) else value
        radius = min(radius, value)
        search = _Core(reduced, weight, lam, room, radius, picked, deadline, max_labels)
        core = len(search.groups)
        found = search.run()
        if found is not None and found[0] < value:
            value, best = found
        if not search.complete:
            return SearchOutcome(best, value, min(proven, value), base, False, core, reduced <= value * (1 + 1e-9))
        if value <= search.radius:
            return SearchOutcome(best, value, value, base, True, core)
        proven = radius
        count *= 2


def most_saved(weight: FloatArray, allowed: BoolArray) -> float:
    """What all groups together can save at most, so that dearer choices are out of the question.

    Args:
        weight: Shape [groups, choices], relative to a configuration.
        allowed: Shape [groups, choices].

    Returns:
        `sum_g max_j -weight`, and more than the rounding of sums.
    """
    rounding = 2.0**-44 * float(np.where(allowed, np.abs(weight), 0.0).max(axis=1).sum())
    return float(np.where(allowed, -weight, 0.0).max(axis=1).sum()) + rounding


def _one_exchange(
    reduced: FloatArray, weight: FloatArray, lam: float, room: float, picked: IntArray, value: float
) -> tuple[IntArray, float]:
    """The best configuration that differs from the greedy one in one group."""
    after = np.where(weight <= room, reduced + lam * (room - weight), np.inf)
    at = int(after.argmin())
    if after.flat[at] >= value:
        return picked, value
    group, choice = divmod(at, reduced.shape[1])
    picked = picked.copy()
    picked[group] = choice
    return picked, float(after.flat[at])


_Steps = tuple[IntArray, FloatArray, FloatArray]
"""Core index, size and slope of some hull steps."""
_Entries = tuple[IntArray, FloatArray, FloatArray]
"""Choices of a group with their weights and reduced costs."""


class _Core:
    """One round: everything within the radius."""

    def __init__(
        self,
        reduced: FloatArray,
        weight: FloatArray,
        lam: float,
        room: float,
        radius: float,
        start: IntArray,
        deadline: float,
        max_labels: int,
    ) -> None:
        self.lam, self.room = lam, room
        self.start, self.deadline, self.max_labels = start, deadline, max_labels
        offered = reduced <= radius
        offered[np.arange(len(start)), start] = True
        moved = offered.copy()
        moved[np.arange(len(start)), start] = False
        groups = np.flatnonzero(moved.any(axis=1))
        cheapest = np.where(moved[groups], reduced[groups], np.inf).min(axis=1)
        self.groups = groups[np.argsort(-cheapest, kind="stable")]
        largest = np.where(offered[groups], np.abs(weight[groups]), 0.0).max(axis=1).sum()
        self.light = _ROUNDING * (largest + abs(room))
        self.radius = radius + _ROUNDING * radius + lam * self.light
        self.entries: list[_Entries] = [
            (choices, weight[group, choices], reduced[group, choices])
            for group, choices in ((int(g), np.flatnonzero(offered[g])) for g in self.groups)
        ]
        up, down = _outward_steps(self.entries, lam)
        self.steps = (up[0], up[1], np.minimum(up[2], lam)), down  # leaving room unused is never dearer than lam
        self.complete = True

    def run(self) -> tuple[float, IntArray] | None:
        rest = np.ones(len(self.groups), dtype=np.bool_)
        sides = [_Labels(np.zeros(1), np.zeros(1)), _Labels(np.zeros(1), np.zeros(1))]
        first, last = 0, len(self.groups) - 1
        while first <= last:
            side = 0 if len(sides[0].weight) <= 2 * len(sides[1].weight) else 1
            at = first if side == 0 else last
            first, last = (first + 1, last) if side == 0 else (first, last - 1)
            if side == 0:
                rest[at] = False
                outside = rest
            else:
                outside = np.ones(len(self.groups), dtype=np.bool_)
                outside[last + 1 :] = False
            sides[side] = self._extend(sides[side], at, outside)
            if not len(sides[side].weight):
                return None
            if len(sides[side].weight) > self.max_labels or time.perf_counter() > self.deadline:
                self.complete = False
                break
        return self._join(*sides)

    def _extend(self, labels: _Labels, at: int, outside: np.ndarray) -> _Labels:
        choices, weight, reduced = self.entries[at]
        weights = (labels.weight[:, None] + weight).ravel()
        reduceds = (labels.reduced[:, None] + reduced).ravel()
        keep: IntArray = np.flatnonzero(self._lower_bound(weights, reduceds, outside) <= self.radius)
        weights, reduceds = weights[keep], reduceds[keep]
        order = np.argsort(weights, kind="stable")
        weights, reduceds, keep = weights[order], reduceds[order], keep[order]
        keep, weights, reduceds = self._undominated(keep, weights, reduceds)
        made = (int(self.groups[at]), keep // len(choices), choices[keep % len(choices)])
        return _Labels(weights, reduceds, (*labels.history, made))

    def _undominated(
        self, index: IntArray, weight: FloatArray, reduced: FloatArray
    ) -> tuple[IntArray, FloatArray, FloatArray]:
        """Keeps labels with a smaller `loss = reduced - lam weight` than every lighter one."""
        loss = reduced - self.lam * weight
        better = np.ones(len(loss), dtype=np.bool_)
        better[1:] = loss[1:] < np.minimum.accumulate(loss)[:-1]
        return index[better], weight[better], reduced[better]

    def _lower_bound(self, weight: FloatArray, reduced: FloatArray, outside: np.ndarray) -> FloatArray:
        """Relaxation of each label over the groups outside its list, from the hull steps of those groups."""
        slack = self.room - weight
        up, down = self.steps
        return (
            reduced
            + _fill(slack, *_filter(up, outside), self.lam)
            + _fill(-slack - self.light, *_filter(down, outside), np.inf)
        )

    def _join(self, left: _Labels, right: _Labels) -> tuple[float, IntArray] | None:
        if len(left.weight) > 1 and not (np.diff(left.weight) >= 0).all():
            raise AssertionError("labels must ascend")
        place = np.searchsorted(right.weight, self.room - left.weight, side="right") - 1
        fits = np.flatnonzero(place >= 0)
        if not len(fits):
            return None
        partner = place[fits]
        slack = self.room - left.weight[fits] - right.weight[partner]
        total = left.reduced[fits] + right.reduced[partner] + self.lam * slack
        at = int(total.argmin())
        picked = self.start.copy()
        left.pick(int(fits[at]), picked)
        right.pick(int(partner[at]), picked)
        return float(total[at]), picked


def _outward_steps(entries: list[_Entries], lam: float) -> tuple[_Steps, _Steps]:
    """Hull steps away from the start, upward and downward in weight: core index, size and slope, cheapest first."""
    if not entries:
        none = (np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0))
        return none, none
    width = max((len(choices) for choices, _, _ in entries), default=1)
    weight = np.zeros((len(entries), width))
    reduced = np.full((len(entries), width), np.inf)
    for i, (_, w, d) in enumerate(entries):
        weight[i, : len(w)] = w
        reduced[i, : len(d)] = d
    found = []
    for sign in (1.0, -1.0):
        side = sign * weight
        offered = np.isfinite(reduced) & (side >= 0)
        # from the start outward the reduced cost rises and is convex: mirrored, this is a decreasing hull
        # (sheared by lam, so that free moves are steps too)
        far = hull_steps(np.where(offered, reduced + lam * side, 0.0), np.where(offered, -side, 0.0), offered)
        found.append((far.group[::-1], far.cost[::-1], np.maximum(-far.slope[::-1] - lam, 0.0)))
    return found[0], found[1]


def _filter(steps: _Steps, outside: np.ndarray) -> tuple[FloatArray, FloatArray]:
    group, size, slope = steps
    keep = outside[group]
    size, slope = size[keep], slope[keep]
    return np.concatenate([[0.0], np.cumsum(size)]), np.concatenate([[0.0], np.cumsum(size * slope)])


def _fill(amount: FloatArray, sizes: FloatArray, values: FloatArray, beyond: float) -> FloatArray:
    """Least reduced cost of moving the weight by `amount` (0 if negative), at the price `beyond` where steps end."""
    wanted = np.maximum(amount, 0.0)
    filled = np.interp(wanted, sizes, values)
    rest = np.maximum(wanted - sizes[-1], 0.0)
    with np.errstate(invalid="ignore"):
        return filled + np.where(rest > 0, rest * beyond, 0.0)
