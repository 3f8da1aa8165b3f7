"""Result: what a search measured, and the choices that follow from it."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InfeasibleBudget
from ..measurement import Measurement
from ..space import Configuration
from .allocation import knee
from .archive import Archive
from .choice import Choice, Point, estimates, judged_gap, unreachable, winner, within
from .judged import judged
from .problem import Problem, exact_allocations
from .proxy_choice import ProxyChoice
from .rank_statistics import correlation
from .stage import Ledger
from .surrogate import Fitted, PowerLaw, Surrogate
from .trust import TrustReport

if TYPE_CHECKING:
    import pandas as pd

_COVERAGE = 0.95  # of the intervals of what is foretold
_FEWEST = 8  # measured points from which the surrogate has a say in the choice


@dataclass
class Result:
    """What a search found.

    Attributes:
        problem: scores, prices, objectives, constraints.
        points: everything measured, cheapest first.
        float_model: the float model by split.
        surrogate: the map from score to quality, if it could be fitted.
        seconds: wall time by stage.
        failures: configurations that gave no finite output, with the reason.
        job: the job as asked.
        model: name of the model.
        metric: quality metric.
        notes: what else is to be told.
        proxy_choice: which proxy ``proxies: auto`` decided for; ``None`` where the proxies were named.
        ledger: the stages that ran and those that were reused.
        key: under which the store keeps what ``resolve`` answers new budgets from.
        record: what it takes to run it again.
        recipe: how everything was quantized: what was chosen, and what was tried where there was a choice.
        search: how the search went: rounds, shares of the proposers, the surrogate, why it ended.
    """

    problem: Problem
    points: list[Point]
    float_model: dict[str, Measurement]
    surrogate: PowerLaw | None
    seconds: dict[str, float]
    failures: dict[Configuration, str]
    job: dict[str, Any]
    model: str
    metric: str
    notes: list[str] = field(default_factory=list)
    proxy_choice: ProxyChoice | None = None
    ledger: Ledger = field(default_factory=Ledger)
    key: str = ""
    record: dict[str, Any] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def front(self) -> pd.DataFrame:
        """All measured points: id, quality with interval, prices, baseline, origin, flags, configuration."""
        import pandas as pd

        rows = []
        for point in self.points:
            row: dict[str, Any] = {"id": point.id, "baseline": point.baseline, "pareto": point.pareto}
            row |= {"feasible": point.feasible, "predicted": point.predicted, "score": point.score}
            for split, found in (("validation", point.validation), ("holdout", point.holdout)):
                for key in ("value", "low", "high"):
                    row[f"{split}_{key}"] = getattr(found, key) if found else np.nan
            row |= {metric: price.value for metric, price in point.prices.items()}
            row |= {"origin": point.origin, "configuration": point.configuration.to_dict()}
            rows.append(row)
        return pd.DataFrame(rows)

    @cached_property
    def fitted(self) -> Fitted:
        """The surrogate of the loop, fitted to everything measured on the validation data; up to a second or two."""
        base = self.float_model["validation"].value
        archive = Archive(self.problem, base)
        found = [archive.evaluation(point.configuration, point.origin, point.validation) for point in self.points]
        return Surrogate(self.problem, base, coverage=_COVERAGE).fit(found)

    @cached_property
    def foretold(self) -> dict[Configuration, float]:
        """Quality of every point as the surrogate foretells it from the others; empty with fewer than 8 points."""
        if len(self.points) < _FEWEST:
            return {}
        values = self.fitted.latent.inverse(self.fitted.left_out)
        return {point.configuration: float(value) for point, value in zip(self.points, values, strict=True)}

    @cached_property
    def trust(self) -> TrustReport:
        """How well each proxy foretold what was measured on the validation data, beside trivial baselines."""
        return judged(
            self.problem.space,
            self.problem.sensitivities,
            [point.configuration for point in self.points],
            [point.validation.value for point in self.points],
            float_quality=self.float_model["validation"].value,
        )

    @cached_property
    def report(self) -> dict[str, Any]:
        """What was tried, and how well each proxy ranked what was measured."""
        measured = np.array([point.validation.value for point in self.points])
        trust = {}
        for name, scores in self.problem.sensitivities.items():
            predicted = np.array([scores.joint(point.configuration) for point in self.points])
            trust[name] = {"spearman": correlation(predicted, measured), "points": len(measured)}
        return {
            "evaluated": len(self.points),
            "failed": {configuration.digest: reason for configuration, reason in self.failures.items()},
            "proxies": trust,
            "trust": {**self.trust.to_dict(), "choice": self._choice_told()},
            "seconds": self.seconds,
            "stages": self.ledger.plain(),
            "search": self.search,
            "recipe": self.recipe,
            "notes": self.notes,
        }

    def _choice_told(self) -> dict[str, Any] | None:
        found = self.proxy_choice
        return {**asdict(found), "reason": found.reason} if found else None

    def best(self, max_drop: float | None = None, **budgets: float) -> Configuration:
        """The configuration to ship.

        Args:
            max_drop: largest loss of quality against the float model; the cheapest configuration (in the first
                price objective) within it is returned.
            budgets: price -> largest value; on top of the constraints of the search.

        Returns:
            Without ``max_drop`` the best quality within the budgets (without any budget: the knee of the front);
            never one that a uniform configuration beats on held-out data at no higher price, nor, within budgets, one
            that is surely worse there than the exact allocation on the scores of a proxy.

        Raises:
            InfeasibleBudget: nothing that was measured meets the budgets.
        """
        return self.choose(max_drop, budgets).point.configuration

    def choose(self, max_drop: float | None = None, budgets: dict[str, float] | None = None) -> Choice:
        """As ``best``, with the point and the reason in words; how is told in ``search/choice.py``."""
        limits = {**self.problem.constraints, **(budgets or {})}
        eligible = [point for point in self.points if within(point.prices, limits)]
        if not eligible:
            raise InfeasibleBudget(unreachable("configuration", [each.prices for each in self.points], limits))
        price = self.problem.price_objectives[0]
        validated = [point for point in eligible if point.holdout is not None]
        if max_drop is not None:
            worst = self.float_model["validation"].value + max_drop
            kept = [point for point in eligible if point.validation.value <= worst]
            if not kept:
                least = min(point.validation.value for point in eligible) - self.float_model["validation"].value
                raise InfeasibleBudget(
                    f"no measured configuration drops less than {max_drop:g}; the least is {least:g}"
                )
            chosen = min(kept, key=lambda point: (point.prices[price].value, point.validation.value))
            rivals = [point for point in eligible if self._no_dearer(point, chosen)]
            return self._against_uniform(chosen, rivals, f"the cheapest in {price} within a drop of {max_drop:g}")
        if limits:
            told = ", ".join(f"{name} <= {limit:g}" for name, limit in limits.items())
            return self._within_limits(validated or eligible, eligible, limits, f"the best quality within {told}")
        chosen = self._knee([p for p in validated if p.pareto] or [p for p in eligible if p.pareto])
        return self._against_uniform(
            chosen,
            [point for point in eligible if self._no_dearer(point, chosen)],
            f"the knee of quality against {' and '.join(self.problem.price_objectives)}",
        )

    def _within_limits(
        self, finalists: list[Point], eligible: list[Point], limits: dict[str, float], reason: str
    ) -> Choice:
        """The best of the finalists, unless an exact allocation is surely better or a uniform one as good."""
        worth = estimates(finalists, self.float_model, self.foretold)
        ordered = sorted(finalists, key=lambda point: worth[point.configuration])
        exact = exact_allocations(self.problem, limits)
        uniform = {point.configuration for point in finalists if point.baseline is not None}
        chosen = winner(ordered, exact | uniform)
        found = [point for point in ordered if point.configuration in exact and point is not chosen]
        if not found:
            return self._against_uniform(chosen, eligible, reason)
        rival, gap = found[0], judged_gap(chosen, found[0])
        if gap is not None and gap.worse:
            told = (
                f"exact allocation on scores, {rival.id}, returned: the search's {chosen.id} is worse on held-out data"
            )
            return self._against_uniform(rival, eligible, told)
        choice = self._against_uniform(chosen, eligible, reason)
        if gap is None or choice.point is not chosen:
            return choice
        told = f"against exact allocation on scores, {rival.id}, {gap.value:.3g} [{gap.low:.3g}, {gap.high:.3g}]"
        return replace(choice, reason=f"{choice.reason}; {told}", exact=rival, against_exact=gap)

    def _knee(self, front: list[Point]) -> Point:
        """The knee of quality against the mean of the price objectives, each scaled to [0, 1] over the front."""
        prices = np.array([[point.prices[name].value for name in self.problem.price_objectives] for point in front])
        extent = np.ptp(prices, axis=0)
        cost = ((prices - prices.min(axis=0)) / np.where(extent > 0, extent, 1.0)).mean(axis=1)
        quality = np.array([point.validation.value for point in front])
        decades = bool(quality.min() > 0 and quality.max() > 10 * quality.min())  # an error that falls exponentially
        return front[knee(cost, quality, log_loss=decades)]

    def _against_uniform(self, chosen: Point, competitors: list[Point], reason: str) -> Choice:
        """The chosen point, unless a uniform one among its competitors is at least as good on held-out data."""
        rivals = [point for point in competitors if point.baseline is not None and point is not chosen]
        if chosen.baseline is not None:
            return Choice(chosen, f"{reason}; uniform {chosen.baseline} is it: nothing measured beats it there")
        if not rivals:
            return Choice(chosen, f"{reason}; no uniform configuration is as cheap")
        rival = min(rivals, key=lambda point: point.quality)
        gap = judged_gap(chosen, rival)
        if gap is None:
            which = chosen if chosen.holdout is None else rival
            return Choice(rival, f"uniform {rival.baseline} returned: {which.id} was not measured on held-out data")
        if rival.quality <= chosen.quality or gap.value >= 0:
            return Choice(rival, f"uniform {rival.baseline} returned: the search found nothing better on held-out data")
        verdict = "better" if gap.better else f"a tie with uniform {rival.baseline}: the interval holds 0"
        told = (
            f"{reason}; on held-out data {self.metric} {chosen.quality:.4g} against {rival.quality:.4g} of uniform "
            f"{rival.baseline} (paired difference {gap.value:.3g} [{gap.low:.3g}, {gap.high:.3g}], {verdict})"
        )
        return Choice(chosen, told, rival, gap)

    def _no_dearer(self, point: Point, than: Point) -> bool:
        """Whether a point costs no more than another in every price objective."""
        prices = self.problem.price_objectives
        return all(point.prices[name].value <= than.prices[name].value * (1 + 1e-9) for name in prices)

    def document(self, exports: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        """Everything as JSON: the content of ``front.json``."""
        from .document import build

        return build(self, exports or [])


def environment() -> dict[str, Any]:
    """Versions, processor and threads, for the record."""
    import torch

    from ..version import __version__

    return {
        "bitfront": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
