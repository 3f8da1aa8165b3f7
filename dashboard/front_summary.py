"""Lines and tables about a job and its points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..service.labels import count, label, limit_text, number, unit
from .view import View

if TYPE_CHECKING:
    import pandas as pd


def headline(view: View) -> str:
    """Model, layers, candidates, constraints, state, best."""
    limits = ", ".join(limit_text(name, value) for name, value in view.constraints.items()) or "no constraints"
    known = view.measured or len(view)
    told = f"{known} of {view.proposed} candidates measured" if view.proposed > known else f"{known} measured"
    parts = [
        f"{view.model}: {count(len(view.sites), 'layer')}",
        told if known == len(view) else f"{told}, {len(view)} of them on the front or uniform",
        limits,
        view.state,
    ]
    if view.failed:
        parts.insert(2, f"{view.failed} failed")
    if view.best in view.rows:
        parts.append(f"best: {view.label(view.rows[view.best])} ({view.best_reason.rstrip('.')})")
    return ", ".join(parts)


def point_metrics(view: View, row: int) -> pd.DataFrame:
    """The chosen point, the best and the uniform ones as columns; metrics as rows, with intervals and units."""
    import pandas as pd

    rows = [row, *([view.rows[view.best]] if view.best in view.rows else []), *view.uniform_rows]
    columns = {}
    for each in dict.fromkeys(rows):
        mark = "chosen: " if each == row else "best: " if view.ids[each] == view.best else ""
        column = {}
        for split, found in view.quality.items():
            name = "held-out" if split == "holdout" else split
            column[f"{label(view.metric)}, {name}"] = interval_text(found[each], unit(view.metric))
        column["predicted"] = interval_text(view.predicted[each], unit(view.metric))
        for metric in view.price_metrics:
            column[label(metric)] = interval_text(view.prices[metric][each], unit(metric))
        layers = view.histogram[each]
        column["layers"] = ", ".join(
            f"{some} × {name}" for name, some in zip(view.formats, layers.tolist(), strict=True) if some
        )
        column["constraints"] = "met" if view.feasible[each] else "missed"
        columns[f"{mark}{view.label(each)}"] = column
    frame = pd.DataFrame(columns)
    return frame.loc[~(frame == "—").all(axis=1)]


def interval_text(three: np.ndarray, of_unit: str) -> str:
    """Such as ``0.0123 [0.011, 0.0135] nats``; a dash where nothing is known."""
    value, low, high = three.tolist()
    if not np.isfinite(value):
        return "—"
    width = f" [{number(low)}, {number(high)}]" if np.isfinite(low) and np.isfinite(high) and high > low else ""
    return f"{number(value)}{width} {of_unit}".rstrip()
