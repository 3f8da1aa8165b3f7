"""The result of a joint search: measured genomes, and the choices that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...architecture import Choices, Genome
from ...errors import InfeasibleBudget, InvalidInput
from ...hw_models import Price
from ...measurement import Difference, Measurement
from ...space import Configuration, SearchSpace
from ..allocation import knee
from ..choice import Point, estimates, judged_gap, winner
from ..stage import Ledger
from .assessed import Assessed
from .correction import Correction
from .space import Subnets

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


@dataclass(frozen=True)
class JointPoint:
    """One measured genome.

    Attributes:
        id: short name: ``uniform-w4``, or ``p`` and a number counted from the cheapest.
        genome: architecture and formats.
        origin: who proposed it: ``uniform``, ``formats alone`` (exact allocation on the largest architecture) or
            ``nested``.
        baseline: name of the format if it is a uniform configuration of the largest architecture.
        score: additive score of its formats.
        float_quality: of its architecture in float on the validation data, measured or foretold.
        predicted: quality foretold from all that was measured, its interval 95 %.
        validation: measured on the data that the search looked at.
        holdout: measured on data that it never saw; survivors only.
        prices: by metric.
        pareto: not dominated on what was measured on the validation data.
        feasible: meets the constraints.
    """

    id: str
    genome: Genome
    origin: str
    baseline: str | None
    score: float
    float_quality: float
    predicted: tuple[float, float, float]
    validation: Measurement
    holdout: Measurement | None
    prices: dict[str, Price]
    pareto: bool
    feasible: bool

    @property
    def quality(self) -> float:
        """The most trustworthy measured quality: held-out where there is one."""
        return (self.holdout or self.validation).value

    @property
    def plain(self) -> Point:
        """The point as the judgement of a search for formats takes it, named by the genome's digest."""
        key = Configuration((("genome", self.genome.digest),))
        return Point(
            self.id,
            key,
            self.origin,
            self.baseline,
            self.score,
            self.predicted[0],
            self.validation,
            self.holdout,
            self.prices,
            self.pareto,
            self.feasible,
        )


@dataclass(frozen=True)
class JointChoice:
    """A point, and why it.

    Attributes:
        point: what is to be shipped.
        reason: in words.
        rival: the best baseline within the same budget that it was compared with; ``None`` where there is none, or
            where the point is that baseline.
        against: the paired difference to it on the held-out samples that judge; negative: the point is better.
    """

    point: JointPoint
    reason: str
    rival: JointPoint | None = None
    against: Difference | None = None


@dataclass
class JointResult:
    """What a joint search found.

    Attributes:
        points: every measured quantized genome, cheapest first.
        float_model: the largest float network by split.
        subnets: build networks of genomes.
        assessed: every architecture that was scored and priced.
        predicted_front: the front of fronts as it is foretold after the last measurement, by rising first price:
            (genome, foretold quality, price objectives).
        correction: from (architecture, score) to quality, as it was fitted last.
        refused: architecture -> why it could not be built, scored or priced.
        failures: genome -> why it has no measurement.
        objectives: ``quality`` and prices.
        constraints: price -> largest value allowed.
        metric: of the quality.
        search: how it went: rounds, why it ended.
        seconds: wall time by stage.
        notes: what else is to be told.
        job: the job as asked.
        ledger: the stages that ran and those that were reused.
        record: what it takes to run it again.
    """

    points: list[JointPoint]
    float_model: dict[str, Measurement]
    subnets: Subnets = field(repr=False)
    assessed: dict[Choices, Assessed] = field(repr=False)
    predicted_front: list[tuple[Genome, float, tuple[float, ...]]] = field(repr=False)
    correction: Correction = field(repr=False)
    refused: dict[Choices, str]
    failures: dict[Genome, str]
    objectives: tuple[str, ...]
    constraints: dict[str, float]
    metric: str
    search: dict[str, Any]
    seconds: dict[str, float]
    notes: list[str] = field(default_factory=list)
    job: dict[str, Any] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def price_objectives(self) -> list[str]:
        """The objectives that are prices."""
        return [name for name in self.objectives if name != "quality"]

    @cached_property
    def front(self) -> pd.DataFrame:
        """All measured genomes: id, architecture, formats, predicted and measured quality, prices, flags."""
        import pandas as pd

        rows = []
        for point in self.points:
            row: dict[str, Any] = {"id": point.id, "baseline": point.baseline, "pareto": point.pareto}
            row |= {"feasible": point.feasible, "float_quality": point.float_quality, "score": point.score}
            row |= dict(zip(("predicted", "predicted_low", "predicted_high"), point.predicted, strict=True))
            for split, found in (("validation", point.validation), ("holdout", point.holdout)):
                for key in ("value", "low", "high"):
                    row[f"{split}_{key}"] = getattr(found, key) if found else np.nan
            row |= {metric: price.value for metric, price in point.prices.items()}
            row |= {"origin": point.origin, "digest": point.genome.digest, **_columns(point.genome)}
            rows.append(row)
        return pd.DataFrame(rows)

    def best(self, max_drop: float | None = None, **budgets: float) -> Genome:
        """The genome to ship.

        Args:
            max_drop: largest loss of quality against the largest float network; the cheapest genome (in the first
                price objective) within it is returned.
            budgets: price -> largest value; on top of the constraints of the search.

        Returns:
            Without ``max_drop`` the best quality within the budgets (without any budget: the knee of the front); never
            one that a uniform configuration of the largest architecture beats on held-out data at no higher price.

        Raises:
            InfeasibleBudget: nothing that was measured meets the budgets.
            InvalidInput: a budget that the search did not price.
        """
        return self.choose(max_drop, budgets).point.genome

    def choose(self, max_drop: float | None = None, budgets: Mapping[str, float] | None = None) -> JointChoice:
        """As ``best``, with the point and the reason in words."""
        limits = {**self.constraints, **(budgets or {})}
        eligible = [point for point in self.points if self._within(point, limits)]
        if not eligible:
            raise InfeasibleBudget(self._unreachable(limits))
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

    def network(self, genome: Genome) -> tuple[nn.Module, SearchSpace]:
        """The plain network of a genome's architecture with its weights in float, and its sites.

        Raises:
            InvalidInput: the family does not have this architecture, or the formats do not fit its sites.
        """
        net = self.subnets.at(genome.choices)
        if genome.configuration.pairs:
            net.space.choice(genome.configuration)
        return net.module, net.space

    def module(self, genome: Genome) -> nn.Module:
        """The plain network of a genome's architecture with its weights in float; ``bf.export`` takes the formats."""
        return self.network(genome)[0]

    def document(self, exports: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
        """Everything as JSON: the content of ``front.json``."""
        from .document import build

        return build(self, list(exports))

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
        return [point for point in points if self._within(point, limits)]

    def _knee(self, front: Sequence[JointPoint]) -> JointPoint:
        """The knee of quality against the mean of the price objectives, each scaled to [0, 1] over the front."""
        prices = np.array([[point.prices[name].value for name in self.price_objectives] for point in front])
        extent = np.ptp(prices, axis=0)
        cost = ((prices - prices.min(axis=0)) / np.where(extent > 0, extent, 1.0)).mean(axis=1)
        quality = np.array([point.validation.value for point in front])
        decades = bool(quality.min() > 0 and quality.max() > 10 * quality.min())
        return front[knee(cost, quality, log_loss=decades)]

    def _within(self, point: JointPoint, limits: Mapping[str, float]) -> bool:
        unknown = sorted(set(limits) - set(point.prices))
        if unknown:
            raise InvalidInput(f"unknown budget {unknown[0]!r}; this search priced {', '.join(point.prices)}")
        return all(point.prices[name].value <= limit * (1 + 1e-9) for name, limit in limits.items())

    def _unreachable(self, limits: Mapping[str, float]) -> str:
        least = ", ".join(
            f"{name} <= {limit:g} (smallest measured {min(p.prices[name].value for p in self.points):.4g})"
            for name, limit in limits.items()
        )
        return f"no measured genome meets {least}; raise a budget or run a search with it as a constraint"


def _columns(genome: Genome) -> dict[str, Any]:
    return {"architecture": genome.choices.to_dict(), "formats": genome.configuration.to_dict()}
