"""What the store and the files of a job with ``space.architecture`` hold: its front, and what it measured."""

from __future__ import annotations

from typing import Any

from ..errors import Conflict, InvalidInput
from ..measurement import Measurement
from ..store import Artifacts, Job, Store
from ..task import Split
from .compare_runs import Found
from .run_job import read_document

_POINT = ("id", "digest", "config", "origin", "baseline", "measured", "prices", "pareto", "feasible", "architecture")


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


def front_of_joint(store: Store, job: Job) -> dict[str, Any]:
    """As ``job_front.front_of``; the points are those of ``front.json``, there once the job has ended.

    Each has its ``architecture`` too, and is called as in the report.
    """
    measured = measured_by(store, job)
    about = {
        "job": job.id,
        "state": job.state,
        "proposed": len(store.candidates(job.id)),
        "measured": sum(split == "validation" for _, split in measured),
        "objectives": list(job.specification.get("objectives", [])),
        "constraints": dict(job.specification.get("constraints", {})),
    }
    location = next((file.location for file in Artifacts(store).of(job.id) if file.name == "front.json"), None)
    if location is None:
        return {**about, "metric": None, "float": {}, "points": []}
    document = read_document(location.rpartition("/")[0])
    shown = [point for point in document["points"] if point["pareto"] or point["baseline"] is not None]
    points = [{name: point[name] for name in _POINT} for point in shown]
    return {**about, "metric": document["metric"], "float": document["float"], "points": points}


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
    document = read_document(job.out or "")
    digests = {point["id"]: point["digest"] for point in document["points"]}
    front = frozenset(point["digest"] for point in document["points"] if point["pareto"])
    return Found(measured, front, digests[document["best"]])
