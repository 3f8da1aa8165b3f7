"""Every non-dominated point of loss and several costs by epsilon constraints.

The part of objective space where points can still be missing is a union of boxes `y < u` ("search zones", K. Klamroth,
R. Lacour and D. Vanderpooten, On the representation of the search region in multi-objective optimization, EJOR 245,
2015). A zone is searched by one exact allocation: the smallest loss with every cost below its bound (Y. V. Haimes, L.
S. Lasdon and D. A. Wismer, 1971); a second one makes the costs small at that loss. The point found splits every zone
that holds it.
"""

from __future__ import annotations

import heapq
import itertools
import time
from dataclasses import replace

import numpy as np

from .problem import FloatArray, IntArray, Problem
from .result import Answer
from .solve import solve
from .verify import objective_of, row_value, slack

Zone = tuple[float, ...]


def epsilon_front(problem: Problem, deadline: float = np.inf) -> tuple[IntArray, bool]:
    """Configurations of all non-dominated points.

    Args:
        problem: Every row is a cost; limits are ignored.
        deadline: Value of `time.perf_counter` at which to stop with what was found.

    Returns:
        Shape [points, groups], and whether that is all.
    """
    count = itertools.count()
    zones: set[Zone] = {(np.inf,) * (len(problem.rows) + 1)}
    heap: list[tuple[float, int, Zone]] = [(-np.inf, next(count), next(iter(zones)))]
    points: list[IntArray] = []
    complete = True
    while heap:
        _, _, zone = heapq.heappop(heap)
        if zone not in zones:
            continue
        if time.perf_counter() > deadline:
            return _stack(points, problem), False
        found = _search(problem, zone[1:], deadline)
        complete &= found.complete
        zones.discard(zone)
        if found.picked is None or found.objective >= zone[0] - slack(problem.loss):
            continue
        points.append(found.picked)
        value = (found.objective, *(row_value(problem, row, found.picked) for row in range(len(problem.rows))))
        zones.add(zone)
        for new in _update(zones, value):
            heapq.heappush(heap, (-new[0], next(count), new))
    return _stack(points, problem), complete


def _stack(points: list[IntArray], problem: Problem) -> IntArray:
    return np.stack(points) if points else np.zeros((0, len(problem.loss)), dtype=np.int64)


def _update(zones: set[Zone], point: Zone) -> list[Zone]:
    """Splits every zone that holds the point; zones inside another one are dropped. Returns the new ones."""
    hit = [zone for zone in zones if all(p < u for p, u in zip(point, zone, strict=True))]
    zones.difference_update(hit)
    parts = {(*zone[:j], point[j], *zone[j + 1 :]) for zone in hit for j in range(len(point))}
    new = []
    for part in parts:
        others = itertools.chain(zones, parts)
        if not any(other != part and all(a <= b for a, b in zip(part, other, strict=True)) for other in others):
            new.append(part)
    zones.update(new)
    return new


def _search(problem: Problem, bounds: Zone, deadline: float) -> Answer:
    """The smallest loss with all costs below their bounds; among those, the smallest normalised sum of costs."""
    limits = np.array([_below(problem, row, bound) for row, bound in enumerate(bounds)])
    found = solve(replace(problem, limits=limits), deadline=deadline)
    if found.picked is None:
        return found
    unit = np.abs(problem.rows).max(axis=(1, 2))
    total: FloatArray = np.tensordot(1.0 / np.where(unit > 0, unit, 1.0), problem.rows, 1)
    held = replace(problem, limits=limits).with_row(problem.loss, found.objective + 2.0 * slack(problem.loss), "loss")
    polished = solve(replace(held, loss=total), deadline=deadline)
    if polished.picked is None:
        return found
    return replace(found, picked=polished.picked, objective=objective_of(problem, polished.picked))


def _below(problem: Problem, row: int, bound: float) -> float:
    """A limit below a value found, clear of all rounding: costs closer than 2^-40 of the largest sum count as equal."""
    clear = bound - 2.0**-40 * float(np.abs(problem.rows[row]).max(axis=1).sum())
    return float(min(clear, np.nextafter(bound, -np.inf)))
