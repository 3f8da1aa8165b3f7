"""What a point tells when the mouse is over it."""

from __future__ import annotations

import math
from html import escape

from .front_document import Front, Point
from .labels import count, share_text, unit
from .tables import histogram


def hover_text(front: Front, point: Point) -> str:
    """Id, metrics with units and intervals, and the histogram of formats as bars of text."""
    quality_unit = unit(front.metric)
    about = [*([point.id] if point.baseline else []), *([point.origin] if point.origin else [])]
    lines = [f"<b>{escape(point.label)}</b>" + (f" ({escape(', '.join(about))})" if about else "")]
    for title, measured in (("validation", point.measured.validation), ("held-out", point.measured.holdout)):
        if measured is not None:
            lines.append(f"{title} {escape(front.metric)}: {measured.text(quality_unit)}")
    if math.isfinite(point.predicted_quality):
        lines.append(f"predicted {escape(front.metric)}: {front.predicted(point).text(quality_unit)}")
    for metric, price in point.prices.items():
        source = f" ({escape(price.source)})" if price.source not in ("", "exact") else ""
        lines.append(f"{escape(metric)}: {price.text(unit(metric))}{source}")
    for name, row in histogram(front, point).iterrows():
        if row["layers"]:
            bar = "█" * max(1, round(10 * row["share"]))
            lines.append(
                f"{escape(str(name))}: {count(row['layers'], 'layer')}, {share_text(row['share'])} of weights {bar}"
            )
    if not point.feasible:
        lines.append("misses a constraint")
    return "<br>".join(lines)
