"""What a search records of itself with its job: what it measured on, under which keys, at which prices."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..hw_models import Prices
from ..task import SPLITS, Split, Task
from .knowledge import Knowledge
from .records import price_arrays


def run_record(task: Task, found: Knowledge, key: str, knowledge: str, seed: int, evaluations: int) -> dict[str, Any]:
    """The record of a search, as plain data.

    Args:
        task: as it was measured (after equalization, if there was one).
        found: space, prices, contexts.
        key: of the job, for ``resolve``.
        knowledge: under which ``found`` is kept; another search of the same job may keep another.
        seed: of every random choice.
        evaluations: asked for.
    """
    return {
        "key": key,
        "knowledge": knowledge,
        "contexts": dict(found.contexts),
        "metric": found.metric,
        "seed": seed,
        "evaluations": evaluations,
        "recipe": found.recipe,
        "space": found.space.digest,
        "task": task.digest(*SPLITS),
        "prices": price_digests(found.prices),
    }


def price_digests(prices: Prices) -> dict[str, dict[str, str]]:
    """By metric: where its prices come from, and a hash (32 hex digits) of all numbers that they are made of."""
    arrays, told = price_arrays(prices), {}
    for metric, table in prices.items():
        content = hashlib.sha256(f"{table.unit}|{table.base!r}".encode())
        for name in sorted(name for name in arrays if name.startswith(f"{metric}/")):
            content.update(f"|{name}|{arrays[name].shape}|".encode())
            content.update(np.ascontiguousarray(arrays[name]).tobytes())
        told[metric] = {"digest": content.hexdigest()[:32], "source": table.source, "provenance": table.provenance}
    return told


def contexts_of(record: Mapping[str, Any]) -> dict[Split, str]:
    """The keys of a job's evaluations by split, from its record; empty before it measures."""
    found: dict[Split, str] = record.get("search", {}).get("contexts", {})
    return found
