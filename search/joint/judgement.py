"""Which measured genome is to be shipped: the best within budgets, never one that a baseline beats on held-out data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import InfeasibleBudget
from ...measurement import Measurement
from ..allocation import knee
from ..choice import estimates, judged_gap, unreachable, winner, within
from .joint_point import JointChoice, JointPoint


@dataclass(frozen=True)
class Judgement:
    """Chooses among the points of a joint search.

    Attributes:
        points: all.
        float_model: the largest float network by split.
        price_objectives: the objectives that are prices.
        constraints: price -> largest value allowed.
        metric: of the quality.
    """

    points: Sequence[JointPoint]
    float_model: Mapping[str, Measurement]
    price_objectives: Sequence[str]
    constraints: Mapping[str, float]
    metric: str

    def choose(self, max_drop: float | None = None, budgets: Mapping[str, float] | None = None) -> JointChoice:
        """See ``JointResult.best``."""
        limits = {**self.constraints, **(budgets or {})}
        eligible = [point for point in self.points if within(point.prices, limits)]
        if not eligible:
            raise InfeasibleBudget(unreachable("genome", [each.prices for each in self.points], limits))
        validated = [point for point in eligible if point.holdout is not None] or eligible
        price = self.price_objectives[0]
        if max_drop is not None:
            base = self.float_model["validation"].value
            kept = [point for point in eligible if point.validation.value <= base + max_drop]
            if not kept:
                least = min(point.validation.value for point in eligible) - base
                raise InfeasibleBudget(f"no measured genome drops less than {max_drop:g}; the least is {least:g}")
            chosen = min(kept, key=lambda point: (point.prices[price].value, point.validation.value))
            reason, rivals = f"the cheapest in {price} within a drop of {max_drop:g}", self._no_dearer(chosen, eligible)
        elif limits:
            told = ", ".join(f"{name} <= {limit:g}" for name, limit in limits.items())
            chosen, reason, rivals = self._within_limits(validated), f"the best quality within {told}", eligible
        else:
            chosen = self._knee([point for point in validated if point.pareto] or validated)
            reason = f"the knee of quality against {' and '.join(self.price_objectives)}"
            rivals = self._no_dearer(chosen, eligible)
        return self._against_baselines(chosen, rivals, reason)

    def _within_limits(self, finalists: Sequence[JointPoint]) -> JointPoint:
        """The best by posterior mean that is no worse than a baseline on the held-out samples that choose."""
        plain = {point.plain.configuration: point for point in finalists}
        points = [point.plain for point in finalists]
        worth = estimates(points, self.float_model, {})
        ordered = sorted(points, key=lambda point: worth[point.configuration])
        rivals = {each.configuration for each in points if each.origin in ("uniform", "formats alone")}
        return plain[winner(ordered, rivals).configuration]

    def _against_baselines(self, chosen: JointPoint, competitors: Sequence[JointPoint], reason: str) -> JointChoice:
        """The chosen point, unless a uniform one among its competitors is at least as good on held-out data."""
        for exact in (point for point in competitors if point.origin == "formats alone" and point is not chosen):
            gap = judged_gap(chosen.plain, exact.plain)
            if gap is not None and gap.worse:
                reason = f"{reason}; formats alone, {exact.id}, returned: {chosen.id} is worse on held-out data"
                chosen = exact
        if chosen.baseline is not None:
            told = f"{reason}; uniform {chosen.baseline} of the largest architecture is it"
            return JointChoice(chosen, f"{told}: nothing measured beats it there")
        rivals = [point for point in competitors if point.baseline is not None]
        if not rivals:
            return JointChoice(chosen, f"{reason}; no uniform configuration of the largest architecture is as cheap")
        rival = min(rivals, key=lambda point: point.quality)
        gap = judged_gap(chosen.plain, rival.plain)
        if gap is None:
            which = chosen if chosen.holdout is None else rival
            return JointChoice(
                rival, f"uniform {rival.baseline} returned: {which.id} was not measured on held-out data"
            )
        if gap.value >= 0:
            return JointChoice(
                rival, f"uniform {rival.baseline} returned: the search found nothing better on held-out data"
            )
        verdict = "better" if gap.better else f"a tie with uniform {rival.baseline}: the interval holds 0"
        told = (
            f"{reason}; on held-out data {self.metric} {chosen.quality:.4g} against {rival.quality:.4g} of uniform "
            f"{rival.baseline} of the largest architecture (paired difference {gap.value:.3g} "
            f"[{gap.low:.3g}, {gap.high:.3g}], {verdict})"
        )
        return JointChoice(chosen, told, rival, gap)

    def _no_dearer(self, than: JointPoint, points: Sequence[JointPoint]) -> list[JointPoint]:
        """The points that cost no more than one in every price objective."""
        limits = {name: than.prices[name].value for name in self.price_objectives}
        return [point for point in points if within(point.prices, limits)]

    def _knee(self, front: Sequence[JointPoint]) -> JointPoint:
        """The knee of quality against the mean of the price objectives, each scaled to [0, 1] over the front."""
        prices = np.array([[point.prices[name].value for name in self.price_objectives] for point in front])
        extent = np.ptp(prices, axis=0)
        cost = ((prices - prices.min(axis=0)) / np.where(extent > 0, extent, 1.0)).mean(axis=1)
        quality = np.array([point.validation.value for point in front])
        decades = bool(quality.min() > 0 and quality.max() > 10 * quality.min())
        return front[knee(cost, quality, log_loss=decades)]
