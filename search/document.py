"""``front.json``: a finished search as plain data, readable without bitfront."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from ..measurement import Measurement

if TYPE_CHECKING:
    from ..space import SearchSpace
    from .choice import Point
    from .result import Result

SCHEMA_VERSION = 1
_FRONT_POINTS = 400  # of the predicted front; a longer one is thinned evenly


def build(result: Result, exports: list[dict[str, Any]]) -> dict[str, Any]:
    """The document of a result.

    Args:
        result: a finished search.
        exports: reports of what was exported.

    Returns:
        Plain data: dicts, lists, strings, finite numbers, ``None``.
    """
    from .result import environment

    problem = result.problem
    space = problem.space
    choice = result.choose()
    about = environment()
    return {
        "schema_version": SCHEMA_VERSION,
        "name": result.job.get("name") or result.model,
        "created": about["date"],
        "bitfront": about["bitfront"],
        "job": result.job,
        "environment": about,
        "record": result.record,
        "model": {
            "name": result.model,
            **sites(space),
            "skipped": space.skipped,
            "unused": list(space.unused),
        },
        "metric": result.metric,
        "objectives": list(problem.objectives),
        "constraints": problem.constraints,
        "float": {split: measurement(found) for split, found in result.float_model.items()},
        "sensitivity": {
            name: {"values": table(scores.values), "seconds": scores.seconds}
            for name, scores in problem.sensitivities.items()
        },
        "price_tables": {
            metric: {
                "values": table(prices.values),
                "base": prices.base,
                "source": prices.source,
                "provenance": prices.provenance,
                "additive": prices.whole is None and prices.joint is None,
            }
            for metric, prices in problem.prices.items()
        },
        "points": [_point(point) for point in result.points],
        "predicted_front": _predicted_front(result),
        "best": choice.point.id,
        "best_reason": choice.reason,
        "best_against_uniform": choice.plain(),
        "best_against_exact": choice.plain_exact(),
        "proxies": result.report["proxies"],
        "trust": result.report["trust"],
        "surrogate": asdict(result.surrogate) if result.surrogate else None,
        "seconds": result.seconds,
        "stages": result.ledger.plain(),
        "search": result.search,
        "recipe": result.recipe,
        "failed": result.report["failed"],
        "notes": result.notes,
        "exports": exports,
    }


def sites(space: SearchSpace) -> dict[str, Any]:
    """Sites, formats and ties of a space."""
    return {
        "sites": [
            {
                "name": site.name,
                "kind": site.kind,
                "weight_shape": list(site.weight_shape),
                "elements": site.elements,
                "macs": site.macs,
                "formats": list(site.formats),
            }
            for site in space.sites
        ],
        "formats": list(space.formats),
        "ties": [{"sites": list(tie.sites), "reason": tie.reason} for tie in space.ties],
    }


def measurement(found: Measurement | None) -> dict[str, Any] | None:
    """A measurement without its per-sample values."""
    if found is None:
        return None
    return {key: getattr(found, key) for key in ("value", "low", "high", "samples", "split", "seconds")}


def table(values: np.ndarray) -> list[list[float | None]]:
    """A float array as nested lists, NaN as ``None``."""
    return [[float(value) if math.isfinite(value) else None for value in row] for row in values]


def _point(point: Point) -> dict[str, Any]:
    return {
        "id": point.id,
        "config": point.configuration.to_dict(),
        "digest": point.configuration.digest,
        "predicted": {"quality": point.predicted, "score": point.score},
        "measured": {"validation": measurement(point.validation), "holdout": measurement(point.holdout)},
        "prices": {metric: asdict(price) for metric, price in point.prices.items()},
        "baseline": point.baseline,
        "origin": point.origin,
        "pareto": point.pareto,
        "feasible": point.feasible,
    }


def _predicted_front(result: Result) -> list[dict[str, Any]]:
    """The additive model's front in the first price objective, its scores mapped to quality."""
    problem = result.problem
    proxy = next(iter(problem.sensitivities))
    price = problem.price_objectives[0]
    front = problem.front(proxy, price)
    scores = problem.loss(proxy)[np.arange(len(problem.space.sites)), front].sum(axis=1)
    totals = {metric: problem.totals(front, metric) for metric in problem.prices}
    return [
        {
            "cost": {metric: float(total[index]) for metric, total in totals.items()},
            "score": float(scores[index]),
            "loss": result.surrogate.predict(float(scores[index])) if result.surrogate else None,
        }
        for index in np.unique(np.linspace(0, len(front) - 1, min(len(front), _FRONT_POINTS)).astype(int))
    ]
