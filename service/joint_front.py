"""What the store and the files of a job with ``space.architecture`` hold: its front, and what it measured."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from ..architecture import Genome
from ..errors import Conflict, InvalidInput
from ..measurement import Measurement
from ..search.document import sites
from ..search.pareto import non_dominated
from ..store import Artifacts, Job, Store
from ..task import Split
from .compare_runs import Found
from .job_arrays import SPLITS
from .joint_live import JointCandidates, Proposed, candidates_of
from .run_job import read_document

_POINT = (
    *("id", "digest", "config", "origin", "baseline", "measured", "prices", "pareto", "feasible"),
    *("architecture", "architecture_digest"),
)


def is_joint(job: Job) -> bool:
    """Whether a job of the store searches architectures and formats together."""
    space = job.specification.get("space")
    return isinstance(space, dict) and space.get("architecture") is not None


def no_new_budget(name: str) -> InvalidInput:
    """Why a new budget is not answered from the store."""
    return InvalidInput(
        f"{name} searches architectures: the store keeps no exact fronts of theirs to answer a new budget from; ask "
        "the folder of its run: bitfront front DIR --budget PRICE=MAX"
    )


def no_columns(job: Job) -> InvalidInput:
    """Why there are no columns."""
    return InvalidInput(
        f"columns of job {job.id}: it searches architectures, and columns are the layers of one network; ask for "
        f"/v1/jobs/{job.id}/front?networks=true (its front, each point with its network) or /candidates (every genome)"
    )


def front_of_joint(store: Store, job: Job, networks: bool = False) -> dict[str, Any]:
    """As ``job_front.front_of``, while the job runs and after; every point has its ``architecture`` too.

    Until the job has succeeded the points come from the store, and those that are not uniform are called by the digest
    of their genome; then they are those of ``front.json``, called as in the report, as long as there is that file.

    Args:
        store: where.
        job: with ``space.architecture``.
        networks: tell the layers of every point's network too.

    Returns:
        Beside the keys of ``front_of``: kind (``joint``), architectures (how many were proposed), unpriced (measured
        genomes whose prices the store does not have, which are on no front), failed (genomes that could not be
        measured); formats and ``networks`` (architecture digest -> sites), if asked for; and best (id, reason) once the
        job has succeeded. ``measured`` counts float networks too.
    """
    found = candidates_of(store, job)
    asked = list(job.specification.get("objectives", []))
    prices = [name for name in asked if name != "quality"]
    measured = [each for each in found.genomes if found.of(each.digest, "validation") is not None]
    formats = [each for each in measured if each.genome.configuration.pairs]
    priced = [each for each in formats if each.prices is not None]
    limits: dict[str, float] = dict(job.specification.get("constraints", {}))
    about: dict[str, Any] = {
        "job": job.id,
        "kind": "joint",
        "state": job.state,
        "proposed": len(found.genomes),
        "measured": len(measured),
        "failed": len([digest for digest in found.failed if found.of(digest, "validation") is None]),
        "architectures": len({each.genome.choices for each in found.genomes}),
        "objectives": asked,
        "constraints": limits,
    }
    folder = _folder(store, job)
    if job.state == "succeeded" and folder is not None:
        return {**about, **_of_document(read_document(folder), networks)}
    points = _points(found, priced, prices, limits)
    base = None if found.largest is None else Genome(found.largest).digest
    floats = {} if base is None else {split: found.of(base, split) for split in SPLITS}
    return {
        **about,
        "metric": found.metric,
        "float": {split: quality for split, quality in floats.items() if quality is not None},
        "unpriced": len(formats) - len(priced),
        "points": points,
        **(_networks(found, points) if networks else {}),
    }


def _folder(store: Store, job: Job) -> str | None:
    """Where a job of the service wrote its ``front.json``."""
    found = next((file.location for file in Artifacts(store).of(job.id) if file.name == "front.json"), None)
    return None if found is None else found.rpartition("/")[0]


def _of_document(document: dict[str, Any], networks: bool) -> dict[str, Any]:
    """What ``front.json`` says."""
    shown = [point for point in document["points"] if point["pareto"] or point["baseline"] is not None]
    points = [{name: point[name] for name in _POINT} for point in shown]
    told = {"metric": document["metric"], "float": document["float"], "unpriced": 0, "points": points}
    best = {"id": document["best"], "reason": document["best_reason"]}
    if not networks:
        return {**told, "best": best}
    digests = {point["architecture_digest"] for point in points}
    sites = {digest: document["architectures"][digest]["sites"] for digest in sorted(digests)}
    return {**told, "best": best, "formats": document["model"]["formats"], "networks": sites}


def _points(
    found: JointCandidates, measured: list[Proposed], prices: list[str], limits: dict[str, float]
) -> list[dict[str, Any]]:
    """The measured front and the measured uniform configurations, the cheapest in the first price first."""
    rows = [[_value(found, each), *(_price(each, name) for name in prices)] for each in measured]
    table = np.array(rows, dtype=np.float64).reshape(len(rows), 1 + len(prices))
    kept = [
        (each, bool(on_front), found.uniforms.get(each.digest))
        for each, on_front in zip(measured, non_dominated(table), strict=True)
        if on_front or each.digest in found.uniforms
    ]
    kept.sort(key=lambda one: (_price(one[0], prices[0]), one[0].digest))
    return [
        {
            "id": each.digest if uniform is None else f"uniform-{uniform}",
            "digest": each.digest,
            "config": each.genome.configuration.to_dict(),
            "origin": each.origin,
            "baseline": uniform,
            "measured": {split: found.of(each.digest, split) for split in SPLITS},
            "prices": {name: asdict(price) for name, price in (each.prices or {}).items()},
            "pareto": on_front,
            "feasible": all(_price(each, name) <= limit * (1 + 1e-9) for name, limit in limits.items()),
            "architecture": each.genome.choices.to_dict(),
            "architecture_digest": each.genome.choices.digest,
        }
        for each, on_front, uniform in kept
    ]


def _value(found: JointCandidates, each: Proposed) -> float:
    return float(found.quality[each.digest, "validation"]["value"])


def _price(each: Proposed, name: str) -> float:
    return (each.prices or {})[name].value


def _networks(found: JointCandidates, points: list[dict[str, Any]]) -> dict[str, Any]:
    """Formats on offer, and the layers of the points' networks and of the largest."""
    spaces = {choices.digest: prices.space for choices, prices in found.networks.items()}
    shown = {point["architecture_digest"] for point in points}
    first = [] if found.largest not in found.networks else [found.networks[found.largest].space]
    return {
        "formats": list(first[0].formats) if first else [],
        "networks": {digest: sites(spaces[digest])["sites"] for digest in sorted(shown)},
    }


def measured_by(store: Store, job: Job) -> dict[tuple[str, Split], Measurement]:
    """What a job measured or found measured, by (genome digest, split)."""
    proposed = {row.configuration for row in store.candidates(job.id)}
    contexts: dict[Split, str] = job.record.get("joint", {}).get("contexts", {})
    return {
        (digest, split): found
        for split, context in contexts.items()
        for digest, found in store.evaluations(context, split).items()
        if digest in proposed
    }


def found_by(store: Store, job: Job) -> Found:
    """What a run found, for a comparison: measurements from the store, front and best from its ``front.json``.

    Raises:
        Conflict: it is running, or has measured nothing.
        InvalidInput: its output folder holds no front.
    """
    if job.state == "running":
        raise Conflict(f"job {job.id} is running; wait until it has ended, or pause it")
    measured = measured_by(store, job)
    if not measured:
        raise Conflict(f"job {job.id} is {job.state} and has measured nothing that could be compared; run it first")
    document = read_document(_folder(store, job) or job.out or "")
    digests = {point["id"]: point["digest"] for point in document["points"]}
    front = frozenset(point["digest"] for point in document["points"] if point["pareto"])
    return Found(measured, front, digests[document["best"]])
