"""What is known of one point of a run, as plain JSON: handed to export targets that write it down (``bundle``)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def options_for(target: str, evidence: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an export: the evidence where the target takes it, else none.

    Args:
        target: an export target.
        evidence: what ``evidence_of`` gives.
    """
    from ..exporters import get  # brings in torch, which a server does not need

    return {"evidence": dict(evidence)} if "evidence" in get(target).options else {}


def evidence_of(document: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """The evidence for a point.

    Args:
        document: what ``front.json`` holds, or the front of a job that still runs.
        point: one of its points.

    Returns:
        ``point``, ``metric``, ``float``, ``predicted``, ``measured``, ``prices``, ``tables`` (source, provenance and
        digest of every price table), ``environment``, ``recipe``, ``data`` (source and licence).
    """
    tables = {
        name: {"source": table["source"], "provenance": table["provenance"], "digest": _digest(table)}
        for name, table in document.get("price_tables", {}).items()
    }
    return {
        "point": point["id"],
        "metric": document.get("metric"),
        "objectives": list(document.get("objectives", ())),
        "constraints": dict(document.get("constraints", {})),
        "float": document.get("float", {}),
        "predicted": point.get("predicted"),
        "measured": point.get("measured"),
        "prices": point.get("prices", {}),
        "tables": tables,
        "environment": document.get("environment", {}),
        "recipe": document.get("recipe", {}).get("chosen", {}),
        "data": _data(document.get("job", {})),
    }


def _digest(table: Mapping[str, Any]) -> str:
    """Content hash of a price table (16 hex digits)."""
    return hashlib.sha256(json.dumps(table, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def _data(job: Mapping[str, Any]) -> dict[str, Any]:
    """Where model and data come from, and under which licence; that of files of the user's own is not known."""
    from .. import zoo

    model, data = job.get("model", {}), job.get("data", {})
    found: dict[str, Any] = {}
    for part, name in (("model", model.get("zoo")), ("data", data.get("zoo") or model.get("zoo"))):
        if name is not None:
            card = zoo.describe(name)
            found[part] = {"zoo": name, "source": card.source, "licence": card.licence}
        else:
            given = {key: value for key, value in (model if part == "model" else data).items() if value}
            found[part] = {"given": given, "licence": "not stated: the user's own"}
    return found
