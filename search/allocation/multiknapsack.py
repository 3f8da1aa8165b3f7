"""Several budgets, to proven optimality: the label search of `knapsack` with vectors of weights.

With multipliers `lam >= 0` (see `multipliers`), `x0 = argmin_j loss + lam rows`, `room = limits - rows(x0)` and

    d[g, j] = (loss + lam rows)[g, j] - (loss + lam rows)[g, x0_g]  >= 0,    w[r, g, j] = rows[r, g, j] - rows[r, g,
    x0_g],

a configuration has `slack = room - sum w` and the objective `bound + sum d + lam slack`; it is feasible if no slack is
negative. Everything within a radius of the bound is enumerated: two lists of partial configurations are grown, each
label is dropped if a bound with shifted multipliers `nu` leaves the radius,

    sum d + (lam - nu) slack + sum_{g outside} min_j (d[g, j] - (lam - nu) w[g, j])  >  radius,

and the lists are joined through a sorted window of the scarcest row, because `lam_r slack_r <= radius` leaves little
room.
"""

from __future__ import annotations

import itertools
import time

import numpy as np

from .knapsack import MAX_LABELS, SearchOutcome, most_saved
from .multipliers import best_multipliers
from .problem import BoolArray, FloatArray, IntArray

_FIRST_ENTRIES = 24
_MAX_PAIRS = 20_000_000
_CHUNK = 1_000_000
_MAX_SHIFTS = 64
_ROUNDING = 2.0**-50


class _Labels:
    """Partial configurations: weights [rows, labels], reduced costs [labels], and how each was made."""

    def __init__(
        self, weight: FloatArray, reduced: FloatArray, history: tuple[tuple[int, IntArray, IntArray], ...]
    ) -> None:
        self.weight, self.reduced, self.history = weight, reduced, history

    def pick(self, label: int, into: IntArray) -> None:
        for group, parent, choice in reversed(self.history):
            into[group] = choice[label]
            label = int(parent[label])


def solve_multiknapsack(
    loss: FloatArray,
    rows: FloatArray,
    limits: FloatArray,
    allowed: BoolArray,
    *,
    gap: float = 0.0,
    deadline: float = np.inf,
    max_labels: int = MAX_LABELS,
) -> SearchOutcome:
    """Smallest loss with one choice per group and every summed row within its limit.

    Args:
        loss: Shape [groups, choices].
        rows: Shape [rows, groups, choices].
        limits: Shape [rows], finite.
        allowed: Shape [groups, choices].
        gap: Relative gap that is good enough.
        deadline: Value of `time.perf_counter` at which to stop.
        max_labels: Largest list.

    Returns:
        The best configuration found with its bound.
    """
    every = np.arange(len(loss))
    dual = best_multipliers(np.where(allowed, loss, np.inf), rows, limits)
    lam = dual.multipliers
    priced = np.where(allowed, loss + np.tensordot(lam, rows, 1), np.inf)
    start = priced.argmin(axis=1).astype(np.int64)
    reduced = priced - priced[every, start][:, None]
    weight = rows - rows[:, every, start][:, :, None]
    room = limits - rows[:, every, start].sum(axis=1)
    for row, left in zip(weight, room.tolist(), strict=True):
        reduced = np.where(row <= max(left + most_saved(row, allowed), 0.0), reduced, np.inf)
    base = float(loss[every, start].sum() - lam @ room)
    dearest = np.where(allowed, loss, -np.inf).max(axis=1).sum()
    if base > dearest + 1e-6 * np.abs(loss).max(axis=1).sum():
        return SearchOutcome(None, np.inf, np.inf, base, True, 0)  # the dual exceeds every loss: nothing is feasible
    value, best = repair(reduced, weight, lam, room, start)
    ascending = np.sort(reduced[np.isfinite(reduced)])
    ascending = ascending[len(loss) :]
    count = _FIRST_ENTRIES
    proven = 0.0
    while True:
        if best is not None and value - proven <= gap * abs(base + value):
            return SearchOutcome(best, value, proven, base, gap == 0.0, 0)
        radius = min(float(ascending[count]) if count < len(ascending) else np.inf, value)
        if not np.isfinite(radius):
            radius = _everything(reduced, weight, lam, room)
        search = _Round(reduced, weight, lam, room, radius, start, deadline, max_labels)
        found = search.run()
        if found is not None and found[0] < value:
            value, best = found
        if not search.complete:
            possible = reduced <= value * (1 + 1e-9)
            return SearchOutcome(best, value, min(proven, value), base, False, len(search.groups), possible)
        if value <= search.radius or count >= len(ascending):
            return SearchOutcome(best, value, value, base, True, len(search.groups))
        proven = radius
        count = count * 2 if count < 48 else count * 4 // 3  # labels grow tenfold when the entries double


def _everything(reduced: FloatArray, weight: FloatArray, lam: FloatArray, room: FloatArray) -> float:
    """A radius that holds every configuration."""
    dearest = float(np.where(np.isfinite(reduced), reduced, 0.0).max(axis=1).sum())
    lightest = np.where(np.isfinite(reduced), weight, 0.0).min(axis=2).sum(axis=1)
    return dearest + float(lam @ np.maximum(room - lightest, 0.0))


def repair(
    reduced: FloatArray, weight: FloatArray, lam: FloatArray, room: FloatArray, start: IntArray
) -> tuple[float, IntArray | None]:
    """A feasible configuration near the start: the cheapest exchange per violation removed, then the best exchange.

    Args:
        reduced: Shape [groups, choices], `inf` where not offered.
        weight: Shape [rows, groups, choices], relative to the start.
        lam: Shape [rows].
        room: Shape [rows].
        start: Shape [groups].

    Returns:
        Its value relative to the bound and the configuration, or infinity and None.
    """
    groups, choices = reduced.shape
    every = np.arange(groups)
    picked = start.copy()
    slack = room.copy()
    unit = np.maximum(np.abs(weight).max(axis=(1, 2)), 1e-300)
    for _ in range(4 * groups):
        moved = weight - weight[:, every, picked][:, :, None]
        price = reduced - reduced[every, picked][:, None]
        after = slack[:, None, None] - moved
        if (slack >= 0).all():
            total = price - np.tensordot(lam, moved, 1)
            fits = (after >= 0).all(axis=0) & (total < 0)
            if not fits.any():
                return float(reduced[every, picked].sum() + lam @ slack), picked
            at = int(np.where(fits, total, np.inf).argmin())
        else:
            violated = np.maximum(-after / unit[:, None, None], 0.0).sum(axis=0)
            gain = float(np.maximum(-slack / unit, 0.0).sum()) - violated
            with np.errstate(divide="ignore", invalid="ignore"):
                rate = np.where((gain > 0) & np.isfinite(price), np.maximum(price, 0.0) / gain, np.inf)
            at = int(rate.argmin())
            if not np.isfinite(rate.flat[at]):
                return np.inf, None
        group, choice = divmod(at, choices)
        slack = slack - moved[:, group, choice]
        picked[group] = choice
    return (float(reduced[every, picked].sum() + lam @ slack), picked) if (slack >= 0).all() else (np.inf, None)


class _Round:
    """Everything within one radius."""

    def __init__(
        self,
        reduced: FloatArray,
        weight: FloatArray,
        lam: FloatArray,
        room: FloatArray,
        radius: float,
        start: IntArray,
        deadline: float,
        max_labels: int,
    ) -> None:
        self.lam, self.room, self.start = lam, room, start
        self.deadline, self.max_labels = deadline, max_labels
        every = np.arange(len(start))
        offered = reduced <= radius
        offered[every, start] = True
        moved = offered.copy()
        moved[every, start] = False
        groups = np.flatnonzero(moved.any(axis=1))
        cheapest = np.where(moved[groups], reduced[groups], np.inf).min(axis=1)
        self.groups = groups[np.argsort(-cheapest, kind="stable")]
        size = np.where(offered[self.groups], np.abs(weight[:, self.groups]), 0.0)
        self.light = _ROUNDING * (size.max(axis=2, initial=0.0).sum(axis=1) + np.abs(room))
        self.radius = radius + _ROUNDING * radius + float(lam @ self.light)
        self.entries = [
            (choices, weight[:, g, choices], reduced[g, choices])
            for g, choices in ((int(g), np.flatnonzero(offered[g])) for g in self.groups)
        ]
        moves = np.flatnonzero(moved[self.groups].ravel())
        typical = np.array(
            [np.median(np.abs(w[self.groups].reshape(-1)[moves])) if len(moves) else 1.0 for w in weight]
        )
        self.shifts = _shifts(lam, radius / np.where(typical > 0, typical, np.inf))
        kept = np.where(offered[self.groups], reduced[self.groups], np.inf)
        self.smallest = np.array(
            [
                (kept - np.tensordot(shift, weight[:, self.groups], 1)).min(axis=1, initial=np.inf)
                for shift in self.shifts
            ]
        ).reshape(len(self.shifts), len(self.groups))
        self.complete = True

    def run(self) -> tuple[float, IntArray] | None:
        rows = len(self.room)
        sides = [_Labels(np.zeros((rows, 1)), np.zeros(1), ()), _Labels(np.zeros((rows, 1)), np.zeros(1), ())]
        outside = [self.smallest.sum(axis=1), self.smallest.sum(axis=1)]
        first, last = 0, len(self.groups) - 1
        while first <= last:
            side = 0 if len(sides[0].reduced) <= 2 * len(sides[1].reduced) else 1
            at = first if side == 0 else last
            first, last = (first + 1, last) if side == 0 else (first, last - 1)
            outside[side] = outside[side] - self.smallest[:, at]
            sides[side] = self._extend(sides[side], at, outside[side])
            if not len(sides[side].reduced):
                return None
            if len(sides[side].reduced) > self.max_labels or time.perf_counter() > self.deadline:
                self.complete = False
                return None
        return self._join(*sides)

    def _extend(self, labels: _Labels, at: int, outside: FloatArray) -> _Labels:
        choices, weight, reduced = self.entries[at]
        weights = (labels.weight[:, :, None] + weight[:, None, :]).reshape(len(weight), -1)
        reduceds = (labels.reduced[:, None] + reduced).ravel()
        bound = (self.shifts @ (self.room[:, None] - weights) + outside[:, None]).max(axis=0) + reduceds
        keep = np.flatnonzero(bound <= self.radius)
        made = (int(self.groups[at]), keep // len(choices), choices[keep % len(choices)])
        return _Labels(weights[:, keep], reduceds[keep], (*labels.history, made))

    def _join(self, left: _Labels, right: _Labels) -> tuple[float, IntArray] | None:
        if len(left.reduced) > len(right.reduced):
            left, right = right, left
        ranges = []
        for row in range(len(self.room)):
            order = np.argsort(right.weight[row], kind="stable")
            heights = right.weight[row][order]
            need = self.room[row] - left.weight[row]
            spare = (self.radius - left.reduced) / self.lam[row] if self.lam[row] > 0 else np.full(len(need), np.inf)
            low = np.searchsorted(heights, need - spare - self.light[row], side="left")
            high = np.searchsorted(heights, need + self.light[row], side="right")
            ranges.append((int(np.maximum(high - low, 0).sum()), order, low, high))
        pairs, order, low, high = min(ranges, key=lambda found: found[0])
        if pairs > _MAX_PAIRS:
            self.complete = False
            return None
        count = np.maximum(high - low, 0)
        ends = np.cumsum(count)
        best, pair = np.inf, (0, 0)
        begin = 0
        while begin < len(count):
            stop = max(begin + 1, int(np.searchsorted(ends, (ends[begin - 1] if begin else 0) + _CHUNK)))
            lefts = np.repeat(np.arange(begin, stop), count[begin:stop])
            offset = np.arange(len(lefts)) - np.repeat(
                ends[begin:stop] - count[begin:stop] - (ends[begin - 1] if begin else 0), count[begin:stop]
            )
            rights = order[low[lefts] + offset]
            slack = self.room[:, None] - left.weight[:, lefts] - right.weight[:, rights]
            total = left.reduced[lefts] + right.reduced[rights] + self.lam @ slack
            total[(slack < -self.light[:, None]).any(axis=0)] = np.inf
            if len(total):
                at = int(total.argmin())
                if total[at] < best:
                    best, pair = float(total[at]), (int(lefts[at]), int(rights[at]))
            begin = stop
        if not np.isfinite(best):
            return None
        picked = self.start.copy()
        left.pick(pair[0], picked)
        right.pick(pair[1], picked)
        return best, picked


def _shifts(lam: FloatArray, unit: FloatArray) -> FloatArray:
    """Differences `lam - nu` to bound with, `nu >= 0`, shape [shifts, rows]; the zero shift is among them."""
    rows = len(lam)
    steps = {1: 12, 2: 3, 3: 1}.get(rows, 0)
    scale = np.array([0.25, 1.0, 4.0]) if steps != 1 else np.array([1.0])
    if steps:
        axis = np.concatenate([-scale[::-1], [0.0], scale])
        grid = np.array(list(itertools.product(axis, repeat=rows)))
    else:
        generator = np.random.default_rng(0)
        grid = np.concatenate(
            [np.zeros((1, rows)), np.eye(rows), -np.eye(rows), generator.choice([-1.0, 0.0, 1.0], (_MAX_SHIFTS, rows))]
        )
    return np.unique(np.minimum(grid * unit, lam), axis=0)
