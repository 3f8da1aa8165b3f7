"""The key of a job: what its answers depend on, hashed without loading the model."""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from ..search.stage import key_of
from ..store import Store
from .job import Job
from .locations import digest, inside

_SPLITS = ("calibration", "validation", "holdout")


def job_key(job: Job, folder: Path, store: Store | None = None) -> str:
    """Key under which a search of this job keeps what new budgets are answered from.

    It covers the model (the zoo entry, the exported program, or the architecture or the source file of the factory with
    their arguments and the content of the weights), the content of the data, space, quantization, quality, device and
    seed. Name, objectives, constraints, proxies, evaluations, workers and export can change: the job still finds what
    it knows. Modules that the factory's module imports are not followed.

    Args:
        job: what is asked.
        folder: where its relative paths start.
        store: keeps the digests of large files.

    Raises:
        InvalidInput: a file of the job is missing.
    """
    model: list[Any] = [job.model.zoo, job.model.factory, job.model.arguments]
    if job.model.architecture is not None:
        model.append(f"architecture {job.model.architecture}")
    if job.model.exported is not None:
        model.append(digest(inside(folder, job.model.exported), "model.exported", store))
    if job.model.factory is not None:
        model.append(source_digest(job.model.factory.split(":")[0], folder, store))
    if job.model.weights is not None:
        model.append(digest(inside(folder, job.model.weights), "model.weights", store))
    data: list[Any] = [job.data.zoo, job.data.batch]
    for split in _SPLITS:
        given = getattr(job.data, split)
        data.append(digest(inside(folder, given), f"data.{split}", store) if isinstance(given, str) else given)
    parts = [getattr(job, name).model_dump(mode="json") for name in ("space", "quantization", "device")]
    if parts[0]["architecture"] is None:  # as it was before there was such a key
        del parts[0]["architecture"]
    if parts[1]["search"] is None:  # as it was before there was such a key
        del parts[1]["search"]
    del parts[2]["tables"]  # it says when to refuse, not what to answer
    if parts[2]["runtime"] is None:  # likewise
        del parts[2]["runtime"]
    return key_of("job-1", model, data, *parts, job.quality, job.search.seed)


def source_digest(module: str, folder: Path, store: Store | None) -> str | None:
    """Digest of a module's source file, found as an import would, but without running anything."""
    places: list[str] | None = [str(folder), os.getcwd(), *sys.path]
    spec = None
    parts = module.split(".")
    for depth in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: depth + 1]), places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or [])
    return digest(spec.origin, "model.factory", store) if spec is not None and spec.origin is not None else None
