"""``front.json`` of a joint search: the same document, whose points carry their architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from ...architecture import ArchitectureSpace, Genome
from ...measurement import Measurement
from ..document import SCHEMA_VERSION, measurement, table
from ..recipe_search import short

if TYPE_CHECKING:
    from ...space import SearchSpace
    from .joint_point import JointPoint
    from .result import JointResult

_FRONT_POINTS = 400  # of the foretold front; a longer one is thinned evenly


def build(result: JointResult, exports: list[dict[str, Any]]) -> dict[str, Any]:
    """The document of a result.

    Sites, price tables and scores are those of the largest architecture, whose uniform configurations are the
    baselines; the sites of every measured architecture are under ``architectures``.

    Args:
        result: a finished search.
        exports: reports of what was exported.

    Returns:
        Plain data: dicts, lists, strings, finite numbers, ``None``.
    """
    from ..result import environment

    family, about = result.subnets.joint.family, environment()
    largest = result.assessed[family.architecture.largest()]
    choice = result.choose()
    against = None if choice.against is None else asdict(choice.against)
    tie = choice.against is not None and not (choice.against.better or choice.against.worse)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "joint",
        "name": result.job.get("name") or result.subnets.task.name,
        "created": about["date"],
        "bitfront": about["bitfront"],
        "job": result.job,
        "environment": about,
        "record": result.record,
        "family": {"name": family.name, "digest": family.digest, **_dimensions(family.architecture)},
        "architectures": _architectures(result),
        "model": {
            "name": result.subnets.task.name,
            "sites": _sites(largest.problem.space),
            "formats": list(largest.problem.space.formats),
            "ties": [{"sites": list(tie.sites), "reason": tie.reason} for tie in largest.problem.space.ties],
            "skipped": largest.problem.space.skipped,
            "unused": list(largest.problem.space.unused),
        },
        "metric": result.metric,
        "objectives": list(result.objectives),
        "constraints": result.constraints,
        "float": {split: measurement(found) for split, found in result.float_model.items()},
        "sensitivity": {
            name: {"values": table(scores.values), "seconds": scores.seconds}
            for name, scores in largest.problem.sensitivities.items()
        },
        "price_tables": {
            metric: {
                "values": table(prices.values),
                "base": prices.base,
                "source": prices.source,
                "provenance": prices.provenance,
            }
            for metric, prices in largest.problem.prices.items()
        },
        "points": [_point(point, result.whole_ms) for point in result.points],
        "predicted_front": _predicted_front(result),
        "best": choice.point.id,
        "best_reason": choice.reason,
        "best_against_uniform": {
            "tie": tie,
            "rival": None if choice.rival is None else choice.rival.id,
            "difference": against,
        },
        "seconds": result.seconds,
        "stages": result.ledger.plain(),
        "joint_search": result.search,
        "recipe": {"chosen": asdict(result.subnets.recipe), "name": short(result.subnets.recipe), "tried": []},
        "failed": {genome.digest: reason for genome, reason in result.failures.items()},
        "refused": {choices.digest: reason for choices, reason in result.refused.items()},
        "notes": result.notes,
        "exports": exports,
    }


def _dimensions(architecture: ArchitectureSpace) -> dict[str, Any]:
    return {
        "dimensions": [asdict(each) for each in architecture.dimensions],
        "dimension_ties": [list(tie) for tie in architecture.ties],
    }


def _sites(space: SearchSpace) -> list[dict[str, Any]]:
    return [
        {
            "name": site.name,
            "kind": site.kind,
            "weight_shape": list(site.weight_shape),
            "elements": site.elements,
            "macs": site.macs,
            "formats": list(site.formats),
        }
        for site in space.sites
    ]


def _architectures(result: JointResult) -> dict[str, dict[str, Any]]:
    """Every assessed architecture by digest: its choices, its float network, and the sites of measured ones."""
    measured = {point.genome.choices: point.float_quality for point in result.points}
    return {
        choices.digest: {
            "architecture": choices.to_dict(),
            "float_quality": measured.get(choices),
            "front_points": len(found.front),
            "refused": found.refused,
            "sites": _sites(found.problem.space) if choices in measured else None,
        }
        for choices, found in result.assessed.items()
    }


def _point(point: JointPoint, whole_ms: Mapping[Genome, float]) -> dict[str, Any]:
    value, low, high = point.predicted
    splits: dict[str, Measurement | None] = {"validation": point.validation, "holdout": point.holdout}
    return {
        "id": point.id,
        **_genome(point.genome),
        "predicted": {"quality": value, "low": low, "high": high, "score": point.score, "float": point.float_quality},
        "measured": {split: measurement(found) for split, found in splits.items()},
        "prices": {metric: asdict(price) for metric, price in point.prices.items()},
        "whole_ms": whole_ms.get(point.genome),
        "baseline": point.baseline,
        "origin": point.origin,
        "pareto": point.pareto,
        "feasible": point.feasible,
    }


def _genome(genome: Genome) -> dict[str, Any]:
    return {
        "architecture": genome.choices.to_dict(),
        "architecture_digest": genome.choices.digest,
        "config": genome.configuration.to_dict(),
        "digest": genome.digest,
    }


def _predicted_front(result: JointResult) -> list[dict[str, Any]]:
    """The foretold front of fronts."""
    points = result.predicted_front
    if not points:
        return []
    kept = np.unique(np.linspace(0, len(points) - 1, min(len(points), _FRONT_POINTS)).astype(int))
    return [
        {
            "cost": dict(zip(result.price_objectives, points[index][2], strict=True)),
            "loss": points[index][1],
            "architecture_digest": points[index][0].choices.digest,
            "digest": points[index][0].digest,
        }
        for index in kept
    ]
