"""The answer to budgets, from what is stored: the best measured point, and the exact optimum of the additive model."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InfeasibleBudget
from ..search.allocation import Allocation, allocate
from .view import View

_SECONDS = 0.25  # for the optimum: one or two budgets are proven in milliseconds, what takes longer shows its gap


@dataclass(frozen=True, eq=False)
class Answer:
    """What budgets lead to.

    Attributes:
        budgets: metric -> largest value; ``quality`` is a largest loss.
        row: of the best measured point that meets them, ``None`` if none does.
        choice: int64 [sites]: the exact optimum of the scores within the budgets on prices, ``None`` without one.
        measured_row: its row if it was measured.
        score: sum of its scores.
        totals: price -> its sum of sites and base (``additive`` tables: its price).
        proven: whether no configuration has a lower score within the budgets.
        binding: the prices that hold the optimum back: without their budget a lower score could be had.
        reason: why there is no optimum, or no measured point.
        seconds: that it took.
    """

    budgets: dict[str, float]
    row: int | None
    choice: NDArray[np.int64] | None
    measured_row: int | None
    score: float
    totals: dict[str, float]
    proven: bool
    binding: tuple[str, ...]
    reason: str
    seconds: float


def resolve(view: View, budgets: Mapping[str, float], split: str = "validation", proxy: str | None = None) -> Answer:
    """The answer to budgets.

    Args:
        view: the job.
        budgets: metric -> largest value; ``quality`` bounds the loss of measured points only.
        split: on which measured points are compared.
        proxy: whose scores are added up; by default the first.

    Returns:
        The best measured point: of the least quality, or with a bound on the quality, of the least first price. The
        optimum: ``min sum_i score[i, c_i]`` subject to ``base + sum_i price[i, c_i] <= budget`` for every price, ties
        kept, exact (``allocate``). Where a price is no sum over sites the sum stands in for it.
    """
    started = time.perf_counter()
    row = best_measured(view, budgets, split)
    why = "" if row is not None else "nothing that was measured meets these budgets"
    limits = {name: limit for name, limit in budgets.items() if name in view.price_tables}
    choice: NDArray[np.int64] | None = None
    score, proven, binding = np.nan, False, tuple[str, ...]()
    name = proxy or next(iter(view.sensitivities), None)
    if name is None or not limits:
        why = why or ("no scores are stored" if name is None else "")
    else:
        try:
            choice, score, proven, binding = _optimum(view, name, limits)
        except InfeasibleBudget as cause:
            why = str(cause)
    totals = {} if choice is None else {metric: total(view, metric, choice) for metric in view.price_tables}
    measured_row = None if choice is None else _row(view, choice)
    seconds = time.perf_counter() - started
    return Answer(dict(budgets), row, choice, measured_row, score, totals, proven, tuple(binding), why, seconds)


def best_measured(view: View, budgets: Mapping[str, float], split: str) -> int | None:
    """Row of the best measured point within budgets, or ``None``."""
    quality = view.quality[split][:, 0]
    fits = np.isfinite(quality)
    for name, limit in budgets.items():
        found = quality if name == "quality" else view.prices[name][:, 0]
        fits &= found <= limit + 1e-9 * abs(limit)
    rows = np.flatnonzero(fits)
    if not len(rows):
        return None
    first = next((name for name in view.price_metrics), None)
    if "quality" in budgets and first is not None:
        return int(rows[np.lexsort((quality[rows], view.prices[first][rows, 0]))[0]])
    return int(rows[np.argmin(quality[rows])])


def total(view: View, metric: str, choice: NDArray[np.int64]) -> float:
    """Base and the sum over the sites of a configuration."""
    table = view.price_tables[metric]
    return table.base + float(table.values[np.arange(len(choice)), choice].sum())


def _optimum(
    view: View, proxy: str, limits: Mapping[str, float]
) -> tuple[NDArray[np.int64], float, bool, tuple[str, ...]]:
    scores = view.sensitivities[proxy]
    offered = np.isfinite(scores)
    position = {site: index for index, site in enumerate(view.names)}
    ties = [tuple(position[name] for name in tie.sites) for tie in view.ties]
    costs = {name: np.where(offered, view.price_tables[name].values, 0.0) for name in limits}
    losses = np.where(offered, scores, 0.0)

    def solved(names: Iterable[str]) -> Allocation:
        allowances = {name: limits[name] - view.price_tables[name].base for name in names}
        return allocate(losses, costs, allowances, ties=ties, allowed=offered, time_limit=_SECONDS)

    found = solved(limits)
    least = 1e-9 * max(1.0, abs(found.objective))
    binding = [
        name
        for name in limits
        if solved(other for other in limits if other != name).objective < found.objective - least
    ]
    return found.choice.astype(np.int64), float(found.objective), found.status == "optimal", tuple(binding)


def _row(view: View, choice: NDArray[np.int64]) -> int | None:
    same = np.flatnonzero((view.choices == choice.astype(np.int16)).all(axis=1))
    return int(same[0]) if len(same) else None
