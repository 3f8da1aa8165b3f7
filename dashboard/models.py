"""What the pages show, as pure functions: the table of runs, the order of points, what was clicked, downloads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..service.labels import label, unit

if TYPE_CHECKING:
    import pandas as pd

    from .run_folders import RunState


def runs_table(states: Sequence[RunState]) -> pd.DataFrame:
    """One row a run: what it is, how far it came, and the quality of its best point."""
    import pandas as pd

    rows = []
    for state in states:
        front = state.front
        best = front.best_point if front else None
        measured = (best.measured.holdout or best.measured.validation) if best else None
        rows.append(
            {
                "run": state.run.key,
                "state": state.state,
                "model": front.model.name if front else "",
                "points": len(front.points) if front else None,
                "best": best.label if best else "",
                "quality of the best": ""
                if measured is None or front is None
                else f"{label(front.metric).split(' (')[0]} {measured.text(unit(front.metric))}",
                "name": front.name if front else "",
                "created": front.created if front else "",
                "reason": state.reason,
            }
        )
    columns = ["run", "state", "model", "points", "best", "quality of the best", "name", "created", "reason"]
    return pd.DataFrame(rows, columns=pd.Index(columns)).astype({"points": "Int64"})


def clicked_point(event: Any) -> str | None:
    """The id of the point that a Plotly selection of Streamlit holds, ``None`` if it holds none.

    Args:
        event: ``{"selection": {"points": [{"customdata": [id, …]}]}}`` or anything else.

    Returns:
        The first id.
    """
    selection = event.get("selection") if isinstance(event, Mapping) else None
    points = selection.get("points") if isinstance(selection, Mapping) else None
    for point in points if isinstance(points, Sequence) else ():
        data = point.get("customdata") if isinstance(point, Mapping) else None
        first = data.get("0") if isinstance(data, Mapping) else data[0] if isinstance(data, Sequence) and data else None
        if isinstance(first, str) and first:
            return first
    return None


def file_stem(text: str) -> str:
    """A file name without separators, dots and blanks."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_")[:80] or "run"
