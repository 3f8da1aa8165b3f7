"""The fronts of several jobs on one plot, each in its own colour and with its own marker."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go

from ...service.canvas import LOG_TICKS, add_note, base_figure
from ...service.labels import label
from ..compare_model import plane
from ..view import View
from .front_plane import lower_left
from .hover import customdata

# distinct for colour-blind readers (Okabe and Ito, 2008), without yellow
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#6b6b6b", "#54409b")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star", "hexagon")


def fronts(views: Sequence[View], titles: Sequence[str], metric: str, split: str) -> go.Figure:
    """Step lines through the points of each job that no other of its points dominates in this plane.

    Args:
        views: the jobs.
        titles: how each is called in the legend.
        metric: a price that all have.
        split: of the quality.
    """
    figure = base_figure(560)
    shown: list[np.ndarray] = []
    for index, (view, title) in enumerate(zip(views, titles, strict=True)):
        price, quality = plane(view, metric, split)
        known = np.flatnonzero(np.isfinite(price) & np.isfinite(quality))
        rows = known[lower_left(price[known], quality[known])]
        if not len(rows):
            continue
        shown.append(np.column_stack([price[rows], quality[rows]]))
        colour = COLOURS[index % len(COLOURS)]
        figure.add_trace(
            go.Scatter(
                x=price[rows],
                y=quality[rows],
                mode="lines+markers",
                line={"shape": "hv", "color": colour, "width": 1.8},
                marker={"color": colour, "size": 9, "symbol": SYMBOLS[index % len(SYMBOLS)]},
                name=escape(title),
                customdata=customdata(view, rows),
                hovertemplate="%{customdata[1]}<extra>" + escape(title) + "</extra>",
            )
        )
    if not shown:
        add_note(figure, "none of these jobs has measured anything on this split")
        return figure
    both = np.concatenate(shown)
    for update, values, title in (
        (figure.update_xaxes, both[:, 0], escape(label(metric))),
        (figure.update_yaxes, both[:, 1], f"{escape(label(views[0].metric))}, {split}"),
    ):
        log = values.min() > 0 and values.max() > 30 * values.min()
        update(title=title, type="log" if log else "linear", **(LOG_TICKS if log else {"exponentformat": "power"}))
    return figure
