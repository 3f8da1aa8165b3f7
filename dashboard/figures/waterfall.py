"""From float to a point: what each change of formats adds to or takes from a price."""

from __future__ import annotations

from html import escape

import plotly.graph_objects as go

from ...service.canvas import base_figure
from ...service.labels import label, number, unit
from ...service.palette import BEST, INK, MEASURED
from ..layers import contributions
from ..view import View


def waterfall(view: View, row: int, metric: str) -> go.Figure:
    """A price from the finest uniform configuration of the space down to a point, by kind of layer and format.

    Args:
        view: the job.
        row: of the point.
        metric: a price.

    Returns:
        The figure; its last bar is the price of the point.
    """
    begin, steps = contributions(view, row, metric)
    names = [f"all {view.formats[-1]}", *(name for name, _ in steps), view.label(row)]
    values = [begin, *(change for _, change in steps), 0.0]
    end = begin + sum(change for _, change in steps)
    figure = base_figure(max(300, 120 + 34 * len(names)))
    figure.add_trace(
        go.Waterfall(
            orientation="h",
            measure=["absolute", *["relative"] * len(steps), "total"],
            y=[escape(name) for name in names],
            x=values,
            text=[number(begin), *(f"{change:+.3g}" for _, change in steps), number(end)],
            textposition="auto",
            decreasing={"marker": {"color": MEASURED}},
            increasing={"marker": {"color": BEST}},
            totals={"marker": {"color": INK}},
            connector={"line": {"width": 1, "color": INK}},
            hoverinfo="skip",
        )
    )
    figure.update_xaxes(title=escape(label(metric)))
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_layout(showlegend=False, meta={"unit": unit(metric)})
    return figure
