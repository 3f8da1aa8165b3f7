"""Did the predictions hold: measured against predicted quality.

Every marker that stands for a point carries the id of the point first in its ``customdata``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go

from .canvas import Axis, base_figure, error_bars
from .document_parts import Interval
from .front_document import Front
from .hover import hover_text
from .labels import label
from .palette import DOMINATED, INK, PREDICTED, format_colour, symbol


def agreement_figure(front: Front, split: str = "validation") -> go.Figure:
    """Measured against predicted quality of every point, with the rank correlation and the line of equality.

    Args:
        front: the run.
        split: ``validation`` or ``holdout``.

    Returns:
        The figure; the annotation holds Spearman's rank correlation and the number of points.
    """
    shown = [p for p in front.points if math.isfinite(p.predicted_quality) and math.isfinite(p.quality(split))]
    across = Axis([Interval(value=p.predicted_quality) for p in shown])
    axis = Axis([p.quality_interval(split) for p in shown])
    figure = base_figure(480)
    xs = [across.place(p.predicted_quality) for p in shown]
    if shown and across.log == axis.log:
        ends = [max(min(xs), axis.low), min(max(xs), axis.high)]
        if ends[0] < ends[1]:
            line = {"color": DOMINATED, "dash": "dot", "width": 1.5}
            figure.add_trace(go.Scatter(x=ends, y=ends, mode="lines", line=line, name="equal", hoverinfo="skip"))
    for name, points in (
        ("mixed", [p for p in shown if not p.baseline]),
        ("uniform", [p for p in shown if p.baseline]),
    ):
        colours = [format_colour(p.baseline) if p.baseline else PREDICTED for p in points]
        symbols = [symbol("diamond", p.baseline) if p.baseline else "circle" for p in points]
        edge = {"color": INK, "width": 1 if name == "uniform" else 0}
        marker = {"color": colours, "size": 12 if name == "uniform" else 8, "symbol": symbols, "line": edge}
        figure.add_trace(
            go.Scatter(
                x=[across.place(p.predicted_quality) for p in points],
                y=[axis.place(p.quality(split)) for p in points],
                error_y=error_bars([p.quality_interval(split) for p in points], PREDICTED),
                mode="markers",
                marker=marker,
                name=name,
                customdata=[[p.id, hover_text(front, p)] for p in points],
                hovertemplate="%{customdata[1]}<extra></extra>",
            )
        )
    found = rank_correlation([p.predicted_quality for p in shown], [p.quality(split) for p in shown])
    text = f"Spearman ρ = {'undefined' if found is None else f'{found:.3f}'}, {len(shown)} points"
    figure.add_annotation(
        text=text, xref="paper", yref="paper", x=0.01, y=0.99, xanchor="left", yanchor="top", showarrow=False
    )
    figure.update_xaxes(title=f"predicted {escape(label(front.metric))}")
    figure.update_yaxes(title=f"measured {escape(label(front.metric))}")
    axis.apply(figure)
    across.apply(figure, "x")
    return figure


def rank_correlation(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Spearman's rank correlation (average ranks for ties); ``None`` for fewer than 3 pairs or a constant side."""
    import pandas as pd

    pairs = pd.DataFrame({"x": xs, "y": ys}).dropna().rank()
    if len(pairs) < 3 or pairs["x"].nunique() < 2 or pairs["y"].nunique() < 2:
        return None
    return float(pairs["x"].corr(pairs["y"]))
