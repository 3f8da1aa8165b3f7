"""The front of a job as a data frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def frame_of(document: Mapping[str, Any]) -> pd.DataFrame:
    """The points of a front as a server tells it: a row each, with those columns of ``Result.front`` that it knows.

    Args:
        document: with points, each with id, config, origin, baseline, measured, prices, pareto, feasible; of a job that
            searches architectures with architecture too, which is one more column then.
    """
    import pandas as pd

    prices = list(document["points"][0]["prices"]) if document["points"] else []
    splits = [f"{split}_{key}" for split in ("validation", "holdout") for key in ("value", "low", "high")]
    columns = ["id", "baseline", "pareto", "feasible", *splits, *prices, "origin", "configuration"]
    columns += ["architecture"] if document.get("kind") == "joint" else []
    return pd.DataFrame([_row(point) for point in document["points"]], columns=columns)


def _row(point: Mapping[str, Any]) -> dict[str, Any]:
    row = {name: point[name] for name in ("id", "baseline", "pareto", "feasible", "origin")}
    for split in ("validation", "holdout"):
        found = point["measured"].get(split)
        row |= {f"{split}_{key}": found[key] if found else float("nan") for key in ("value", "low", "high")}
    row |= {name: price["value"] for name, price in point["prices"].items()}
    return {**row, "configuration": point["config"], "architecture": point.get("architecture")}
