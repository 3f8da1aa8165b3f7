"""Figures of a joint search: architectures and formats along the front, and how the search went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .labels import label, number
from .palette import MEASURED, PREDICTED, format_colour

_ROW = 22  # pixels of a dimension


def architectures_figure(document: Mapping[str, Any]) -> go.Figure:
    """The dimensions and the shares of formats of every Pareto-optimal genome, by rising first price.

    Args:
        document: the content of ``front.json``; points carry ``architecture``.

    Returns:
        The figure: squares for the values of dimensions, coloured from the smallest to the largest value, above stacked
        bars of the formats. Each mark carries the id of the point first in its ``customdata``.
    """
    price = next(name for name in document["objectives"] if name != "quality")
    points = [each for each in document["points"] if each["pareto"]]
    points.sort(key=lambda each: each["prices"][price]["value"])
    names = [point["id"] for point in points]
    dimensions = document["family"]["dimensions"]
    height = _ROW * max(3, len(dimensions))
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.04, row_heights=[height, 160], specs=[[{}], [{}]]
    )
    for dimension in dimensions:
        _add_dimension(figure, dimension, points)
    for name in document["model"]["formats"]:
        shares = [_share(document, point, name) for point in points]
        figure.add_trace(
            go.Bar(
                x=names,
                y=shares,
                name=name,
                marker={"color": format_colour(name)},
                customdata=[[each] for each in names],
                hovertemplate=f"%{{x}}: %{{y:.0%}} of the weights in {escape(name)}<extra></extra>",
            ),
            row=2,
            col=1,
        )
    figure.update_layout(
        barmode="stack", template="plotly_white", height=height + 330, margin={"l": 10, "r": 10, "t": 20, "b": 10}
    )
    figure.update_layout(paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", bargap=0.1)
    figure.update_yaxes(autorange="reversed", automargin=True, row=1, col=1)
    figure.update_yaxes(tickformat=".0%", range=[0, 1], title="weights", row=2, col=1)
    prices = [f"{each}<br>{number(point['prices'][price]['value'])}" for each, point in zip(names, points, strict=True)]
    figure.update_xaxes(tickvals=names, ticktext=prices, title=escape(label(price)), row=2, col=1)
    return figure


def rounds_figure(document: Mapping[str, Any]) -> go.Figure:
    """Hypervolume and number of architectures against evaluations."""
    rounds = document["joint_search"]["rounds"]
    # float networks were evaluations of their own in older documents
    spent = [line["evaluations"] + line.get("float_networks", 0) for line in rounds]
    figure = make_subplots(specs=[[{"secondary_y": True}]])
    lines = (("hypervolume", "hypervolume", MEASURED, False), ("architectures", "architectures", PREDICTED, True))
    for name, key, colour, second in lines:
        figure.add_trace(
            go.Scatter(
                x=spent,
                y=[line[key] for line in rounds],
                name=name,
                mode="lines+markers",
                line={"color": colour},
                text=[line["round"] for line in rounds],
                hovertemplate=f"%{{text}}: {name} %{{y:.4g}}<extra></extra>",
            ),
            secondary_y=second,
        )
    figure.update_layout(template="plotly_white", height=380, margin={"l": 10, "r": 10, "t": 20, "b": 10})
    figure.update_layout(paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)")
    figure.update_xaxes(title="evaluations")
    figure.update_yaxes(title="hypervolume", secondary_y=False)
    figure.update_yaxes(title="architectures", rangemode="tozero", secondary_y=True)
    return figure


def _add_dimension(figure: go.Figure, dimension: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> None:
    """One row of squares; a genome in which the dimension does not exist has none."""
    values, name = list(dimension["values"]), dimension["name"]
    shown = [point for point in points if name in point["architecture"]]
    chosen = [point["architecture"][name] for point in shown]
    scale = max(1, len(values) - 1)
    figure.add_trace(
        go.Scatter(
            x=[point["id"] for point in shown],
            y=[name] * len(shown),
            mode="markers+text",
            text=[str(value) for value in chosen],
            textfont={"size": 9, "color": ["white" if 2 * values.index(v) > scale else "black" for v in chosen]},
            marker={
                "symbol": "square",
                "size": 20,
                "color": [values.index(value) / scale for value in chosen],
                "colorscale": "Blues",
                "cmin": -0.25,
                "cmax": 1,
            },
            customdata=[[point["id"]] for point in shown],
            hovertemplate=f"%{{x}}: {escape(name)} = %{{text}}<extra></extra>",
            showlegend=False,
        ),
        row=1,
        col=1,
    )


def _share(document: Mapping[str, Any], point: Mapping[str, Any], name: str) -> float:
    """The share of a genome's weights that a format has."""
    sites = document["architectures"][point["architecture_digest"]]["sites"]
    elements = {site["name"]: site["elements"] for site in sites}
    total = sum(elements.values())
    held = sum(elements[site] for site, chosen in point["config"].items() if chosen == name)
    return float(held / total)
