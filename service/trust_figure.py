"""What the proxies know beyond the size: Kendall's tau of each, overall and at fixed size, with its interval."""

from __future__ import annotations

import plotly.graph_objects as go

from .canvas import add_note, base_figure, error_bars
from .front_document import Trust
from .palette import DOMINATED, INK, PREDICTED


def trust_figure(trust: Trust) -> go.Figure:
    """Two markers with intervals for every proxy and baseline, the first row on top.

    Args:
        trust: the report.

    Returns:
        The figure; a note instead of markers where no correlation is known.
    """
    figure = base_figure(max(260, 110 + 34 * len(trust.rows)))
    for name, field, colour, shape in (
        ("all pairs", "kendall", DOMINATED, "circle-open"),
        ("at fixed size", "kendall_fixed", PREDICTED, "circle"),
    ):
        found = [(row_name, getattr(row, field)) for row_name, row in trust.rows.items()]
        shown = [(row_name, estimate) for row_name, estimate in found if estimate is not None]
        figure.add_trace(
            go.Scatter(
                x=[estimate.value for _, estimate in shown],
                y=[row_name for row_name, _ in shown],
                error_x=error_bars([estimate for _, estimate in shown], colour),
                mode="markers",
                marker={"color": colour, "size": 10, "symbol": shape, "line": {"width": 2, "color": colour}},
                name=name,
                hovertemplate="%{y}: %{x:.2f}<extra>" + name + "</extra>",
            )
        )
    if not any(len(trace.x) for trace in figure.data):
        add_note(figure, "too few measurements to tell")
    figure.add_vline(x=0, line={"color": INK, "dash": "dot", "width": 1.5})
    figure.update_xaxes(title="Kendall τ (0: chance, 1: the right order)", range=[-1.05, 1.05])
    figure.update_yaxes(autorange="reversed", categoryorder="array", categoryarray=list(trust.rows), type="category")
    return figure
