"""How a search went: the hypervolume and the gap as it shrank, and which proposers earned their evaluations."""

from __future__ import annotations

import math

import plotly.graph_objects as go

from .canvas import add_note, base_figure
from .palette import DOMINATED, MEASURED, PREDICTED
from .search_record import SearchRecord


def progress_figure(search: SearchRecord) -> go.Figure:
    """Hypervolume of the measured front, and its gap to the predicted one, against the number of evaluations.

    Args:
        search: the rounds.

    Returns:
        The figure; a note where nothing was measured.
    """
    figure = base_figure(380)
    rounds = search.rounds
    if not rounds:
        add_note(figure, "nothing was measured")
        return figure
    names = [line.round for line in rounds]
    figure.add_trace(
        go.Scatter(
            x=[line.evaluations for line in rounds],
            y=[line.hypervolume for line in rounds],
            mode="lines+markers",
            line={"color": MEASURED, "shape": "hv"},
            marker={"size": 7},
            name="hypervolume",
            text=names,
            hovertemplate="%{text}<br>%{x} evaluations: %{y:.4f}<extra>hypervolume</extra>",
        )
    )
    told = [line for line in rounds if math.isfinite(line.gap)]
    figure.add_trace(
        go.Scatter(
            x=[line.evaluations for line in told],
            y=[100 * line.gap for line in told],
            mode="lines+markers",
            line={"color": PREDICTED, "dash": "dot"},
            marker={"size": 7, "symbol": "diamond"},
            name="gap to the predicted front (right axis)",
            text=[line.round for line in told],
            hovertemplate="%{text}<br>%{x} evaluations: %{y:.2f} %<extra>gap</extra>",
            yaxis="y2",
        )
    )
    figure.update_xaxes(title="evaluations", rangemode="tozero")
    figure.update_yaxes(title="hypervolume")
    figure.update_layout(
        yaxis2={
            "title": "gap (%)",
            "rangemode": "tozero",
            "overlaying": "y",
            "side": "right",
            "showgrid": False,
            "zeroline": False,
            "automargin": True,
        },
        margin={"r": 70},
    )
    return figure


def proposers_figure(search: SearchRecord) -> go.Figure:
    """Evaluations of every proposer, those that improved the front apart, with its credit at the end.

    Args:
        search: the shares of the proposers.

    Returns:
        The figure; a note where no round was shared out.
    """
    arms = [arm for arm in search.proposers if arm.evaluations]
    figure = base_figure(max(240, 130 + 34 * len(arms)))
    if not arms:
        add_note(figure, "no round was shared between proposers")
        return figure
    names = [arm.name for arm in arms]
    total = sum(arm.evaluations for arm in arms)
    parts = [
        ("improved on what was known", MEASURED, [arm.improved for arm in arms]),
        ("did not", DOMINATED, [arm.evaluations - arm.improved for arm in arms]),
    ]
    for name, colour, counts in parts:
        figure.add_trace(
            go.Bar(
                y=names,
                x=counts,
                orientation="h",
                marker={"color": colour},
                name=name,
                hovertemplate="%{y}: %{x}<extra>" + name + "</extra>",
            )
        )
    for arm in arms:
        credit = "" if math.isnan(arm.credit) else f", credit {arm.credit:.2f}"
        figure.add_annotation(
            x=arm.evaluations,
            y=arm.name,
            text=f"{100 * arm.evaluations / total:.0f} %{credit}",
            xanchor="left",
            xshift=6,
            showarrow=False,
        )
    most = max(arm.evaluations for arm in arms)
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title="evaluations", range=[0, 1.35 * most])
    figure.update_yaxes(autorange="reversed", type="category")
    return figure
