"""A new budget for a search that was made before, answered from the store: no model, no data, no torch.

Two answers: the best configuration that was really measured within the budget, judged as the search judges it; and the
exact optimum of the additive model for this budget, which may never have been measured. Then its quality is a
prediction and is marked as one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..errors import InfeasibleBudget, InvalidInput
from ..hw_models import Price
from ..measurement import Measurement
from ..space import Configuration
from ..store import Store
from ..task import Split
from .choice import Choice, Point
from .knowledge import Knowledge, measurements, recall
from .problem import FLOAT, Problem
from .rank_statistics import correlation
from .result import Result
from .summary import summarize

_LEAST = 3  # measured points from which a prediction is made


@dataclass(frozen=True)
class Resolved:
    """The exact optimum of the additive model within a budget.

    Attributes:
        configuration: what.
        prices: by metric.
        measured: its measurement, if there is one.
        predicted: quality that the surrogate foretells; ``None`` where too little was measured to fit one.
        low: lower end of the 95 % interval of the prediction.
        high: upper end.
    """

    configuration: Configuration
    prices: dict[str, Price]
    measured: Measurement | None
    predicted: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Answer:
    """What the store says to a budget.

    Attributes:
        budgets: price -> largest value, the constraints of the job included.
        metric: of the quality.
        choice: the best measured point within the budget; ``None`` where nothing measured meets it.
        resolved: the exact optimum of the additive model.
        proxy: whose scores were added up.
        trust: Spearman correlation of that proxy with what was measured; ``None`` with too little measured.
        points: how many configurations have been measured.
        seconds: wall time of the answer.
    """

    budgets: dict[str, float]
    metric: str
    choice: Choice | None
    resolved: Resolved
    proxy: str
    trust: float | None
    points: int
    seconds: float

    @property
    def settled(self) -> bool:
        """Whether the exact optimum has been measured, so that nothing is left to run for this budget."""
        return self.resolved.measured is not None

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        found = self.resolved
        return {
            "budgets": self.budgets,
            "metric": self.metric,
            "best": None if self.choice is None else {**_point(self.choice.point), **_reason(self.choice)},
            "resolved": {
                "config": found.configuration.to_dict(),
                "digest": found.configuration.digest,
                "prices": {name: asdict(price) for name, price in found.prices.items()},
                "is_measured": self.settled,
                "measured": _quality(found.measured),
                "predicted": {"value": found.predicted, "low": found.low, "high": found.high},
            },
            "proxy": self.proxy,
            "trust": self.trust,
            "points": self.points,
            "seconds": self.seconds,
        }


def resolve(
    store: Store | str | None,
    key: str,
    budgets: Mapping[str, float],
    constraints: Mapping[str, float] | None = None,
) -> Answer:
    """Answer a budget from what the store holds of a job.

    Args:
        store: a ``Store`` or its URL.
        key: of the job: ``result.key``, or ``service.job_key`` of a job file.
        budgets: price -> largest value.
        constraints: hold too, unless a budget on the same price replaces them; default: those of the stored search.

    Returns:
        The best measured point and the exact optimum of the additive model.

    Raises:
        InvalidInput: nothing is stored under this key, or a budget names a price that was not asked for.
        InfeasibleBudget: no configuration meets the budget; the message names the smallest that can be.
    """
    started = time.perf_counter()
    knowledge_store = store if isinstance(store, Store) else Store(store)
    known = recall(knowledge_store, key)
    if known is None:
        raise InvalidInput(
            f"the store {knowledge_store.url} holds nothing of this job with its present model, data, space and device "
            f"(key {key}); run it once: bitfront run JOB.yaml --out DIR"
        )
    limits = {**(known.constraints if constraints is None else constraints), **budgets}
    check_budgets(known, limits)
    found = answer(known, limits, stored_result(knowledge_store, known, limits))
    return replace(found, seconds=time.perf_counter() - started)


def check_budgets(known: Knowledge, limits: Mapping[str, float]) -> None:
    """Refuse budgets on what has no price.

    Raises:
        InvalidInput: the message names what was priced.
    """
    unknown = sorted(set(limits) - set(known.prices))
    if unknown:
        priced = ", ".join(known.prices)
        raise InvalidInput(f"unknown budget {unknown[0]!r}; this job priced {priced}; add it to its constraints")


def answer(known: Knowledge, limits: Mapping[str, float], result: Result | None) -> Answer:
    """Answer a budget from what is known of a job.

    Args:
        known: space, scores, prices.
        limits: price -> largest value, for each price at most one.
        result: what was measured, under these limits; ``None`` where nothing was.

    Raises:
        InfeasibleBudget: no configuration meets the limits; the message names the smallest that can be.
    """
    started = time.perf_counter()
    sensitivities, trust = _by_trust(known, result)
    problem = replace(_problem(known, limits), sensitivities=sensitivities)
    proxy = next(iter(sensitivities))
    configuration = problem.solve(proxy, limits) if limits else _knee(result)
    return Answer(
        dict(limits),
        known.metric,
        _choice(result),
        _resolved(configuration, known, result),
        proxy,
        trust,
        0 if result is None else len(result.points),
        time.perf_counter() - started,
    )


def stored_result(store: Store, known: Knowledge, constraints: Mapping[str, float]) -> Result | None:
    """Everything that was measured for a job as a result, under other constraints; ``None`` if nothing was."""
    origins, found = measurements(store, known)
    return result_of(known, origins, found, constraints)


def result_of(
    known: Knowledge,
    origins: Mapping[Configuration, str],
    found: Mapping[tuple[str, Split], Measurement],
    constraints: Mapping[str, float],
) -> Result | None:
    """Some of what was measured for a job as a result; ``None`` if nothing was, or not the float model."""
    if not origins or any((FLOAT.digest, split) not in found for split in known.contexts):
        return None
    return summarize(
        _problem(known, constraints),
        origins,
        found,
        failures={},
        seconds={},
        job={},
        model=known.model,
        metric=known.metric,
        notes=[],
    )


def _problem(known: Knowledge, constraints: Mapping[str, float]) -> Problem:
    return Problem(known.space, known.sensitivities, known.prices, known.objectives, dict(constraints))


def _choice(result: Result | None) -> Choice | None:
    """The best measured point, judged as the search does; ``None`` where nothing measured meets the budget."""
    if result is None or not any(point.feasible for point in result.points):
        return None
    return result.choose()


def _knee(result: Result | None) -> Configuration:
    if result is None:
        raise InfeasibleBudget("nothing was measured yet and no budget was given; write --budget PRICE=MAX")
    return result.choose().point.configuration


def _by_trust(known: Knowledge, result: Result | None) -> tuple[dict[str, Any], float | None]:
    """The proxies, the one first that ranked the measurements best, and its rank correlation."""
    if result is None:
        return known.sensitivities, None
    measured = np.array([point.validation.value for point in result.points])

    def ranked(name: str) -> float | None:
        scores = known.sensitivities[name]
        return correlation(np.array([scores.joint(point.configuration) for point in result.points]), measured)

    trust = {name: ranked(name) for name in known.sensitivities}
    order = sorted(trust, key=lambda name: -(trust[name] or 0.0))
    return {name: known.sensitivities[name] for name in order}, trust[order[0]]


def _resolved(configuration: Configuration, known: Knowledge, result: Result | None) -> Resolved:
    """With what the surrogate foretells; its intervals are conformal (``surrogate/conformal.py``)."""
    prices = known.prices.of(configuration)
    if result is None:
        return Resolved(configuration, prices, None, None, None, None)
    same = [point for point in result.points if point.configuration == configuration]
    measured = (same[0].holdout or same[0].validation) if same else None
    if len(result.points) < _LEAST:
        return Resolved(configuration, prices, measured, None, None, None)
    found = result.fitted.predict(known.space.choice(configuration)[None])
    return Resolved(configuration, prices, measured, float(found.mean[0]), float(found.low[0]), float(found.high[0]))


def _quality(found: Measurement | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {name: getattr(found, name) for name in ("value", "low", "high", "samples", "split")}


def _point(point: Point) -> dict[str, Any]:
    return {
        "id": point.id,
        "config": point.configuration.to_dict(),
        "digest": point.configuration.digest,
        "baseline": point.baseline,
        "prices": {name: asdict(price) for name, price in point.prices.items()},
        "measured": {"validation": _quality(point.validation), "holdout": _quality(point.holdout)},
    }


def _reason(choice: Choice) -> dict[str, Any]:
    return {"reason": choice.reason, **choice.plain()}
