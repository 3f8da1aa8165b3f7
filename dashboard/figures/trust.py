"""Proxies and predictions against measurements, growth of the front, and the work of the workers in time."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from ...service.canvas import LOG_TICKS, add_note, base_figure
from ...service.labels import label, number
from ...service.palette import BEST, DOMINATED, INK, MEASURED, PREDICTED
from ..trust_model import Rank, growth, scores
from ..view import FloatArray, View
from .front_plane import thinned
from .hover import customdata

if TYPE_CHECKING:
    import pandas as pd

_MOST = 3000


def proxy_scatter(view: View, proxy: str, split: str = "validation") -> go.Figure:
    """The sum of a proxy's scores against the measured quality, a marker a point.

    Args:
        view: the job.
        proxy: whose scores.
        split: of the measurements.

    Returns:
        The figure; axes are logarithmic where all values are positive.
    """
    xs, ys = scores(view, proxy), view.quality[split][:, 0]
    figure = base_figure(440)
    rows = np.flatnonzero(np.isfinite(xs) & np.isfinite(ys))
    rows = thinned(rows, xs[rows], _MOST)
    _markers(figure, view, rows, xs, ys)
    figure.update_xaxes(title=f"sum of scores ({escape(proxy)})", **_scale(xs[rows]))
    figure.update_yaxes(title=f"measured {escape(label(view.metric))}", **_scale(ys[rows]))
    if not len(rows):
        add_note(figure, "nothing has been measured yet")
    return figure


def agreement(view: View, split: str = "validation") -> go.Figure:
    """Predicted against measured quality with both intervals; on the dashed line they agree."""
    figure = base_figure(440)
    xs, ys = view.predicted, view.quality[split]
    rows = np.flatnonzero(np.isfinite(xs[:, 0]) & np.isfinite(ys[:, 0]))
    if not len(rows):
        add_note(figure, "no predictions yet: they come with the end of the search")
        return figure
    bars = len(rows) <= 400
    _markers(figure, view, rows, xs[:, 0], ys[:, 0], xs if bars else None, ys if bars else None)
    both = np.concatenate([xs[rows, 0], ys[rows, 0]])
    ends = [float(both[both > 0].min()) if (both > 0).any() else float(both.min()), float(both.max())]
    figure.add_trace(
        go.Scatter(x=ends, y=ends, mode="lines", line={"dash": "dash", "color": INK}, name="agree", hoverinfo="skip")
    )
    figure.update_xaxes(title=f"predicted {escape(label(view.metric))}", **_scale(xs[rows, 0]))
    figure.update_yaxes(title=f"measured {escape(label(view.metric))}", **_scale(ys[rows, 0]))
    return figure


def rank_figure(found: Sequence[Rank]) -> go.Figure:
    """Spearman's correlation of every proxy with its interval; 0 is chance, 1 the right order."""
    figure = base_figure(max(220, 110 + 34 * len(found)))
    if not found:
        add_note(figure, "too few measurements to tell")
        return figure
    figure.add_trace(
        go.Scatter(
            x=[rank.value for rank in found],
            y=[escape(rank.proxy) for rank in found],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [rank.high - rank.value for rank in found],
                "arrayminus": [rank.value - rank.low for rank in found],
                "color": PREDICTED,
                "thickness": 1.5,
            },
            mode="markers",
            marker={"color": PREDICTED, "size": 11},
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
            showlegend=False,
        )
    )
    figure.add_vline(x=0, line={"color": INK, "dash": "dot", "width": 1.5})
    figure.update_xaxes(title="Spearman's ρ with the measured quality", range=[-1.05, 1.05])
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def growth_figure(view: View, metric: str, seconds: FloatArray | None = None) -> go.Figure:
    """The dominated share of quality and a price against evaluations, or against seconds of work.

    Args:
        view: the job; its points are in the order of proposal.
        metric: the price.
        seconds: when each point was measured, from the first on [points]; ``None``: against evaluations.
    """
    order = np.arange(len(view)) if seconds is None else np.argsort(seconds, kind="stable")
    at, volume = growth(view.quality["validation"][order, 0], view.prices[metric][order, 0])
    figure = base_figure(380)
    if not len(at):
        add_note(figure, "too few measurements")
        return figure
    xs = at.astype(float) if seconds is None else seconds[order][at - 1]
    figure.add_trace(
        go.Scatter(
            x=xs,
            y=volume,
            mode="lines",
            line={"color": MEASURED, "shape": "hv", "width": 2},
            hovertemplate="%{x:.4g}: %{y:.3f}<extra></extra>",
            showlegend=False,
        )
    )
    figure.update_xaxes(title="evaluations" if seconds is None else "seconds since the first", rangemode="tozero")
    figure.update_yaxes(title="hypervolume (share of the box)", range=[0, 1.02])
    return figure


def timeline(work: pd.DataFrame, attempts: Sequence[float] = ()) -> go.Figure:
    """A bar for every measurement, a row for every worker, a line where an attempt at the job began.

    Args:
        work: as ``trust_model.work_of`` gives it.
        attempts: seconds since 1970.
    """
    workers = list(dict.fromkeys(work["worker"]))
    figure = base_figure(max(220, 130 + 40 * len(workers)))
    if not len(work):
        add_note(figure, "no measurement is recorded")
        return figure
    start = float(min(work["start"].min(), *attempts)) if len(attempts) else float(work["start"].min())
    for split, colour in (("validation", MEASURED), ("holdout", BEST)):
        mine = work[work["split"] == split]
        if len(mine):
            figure.add_trace(
                go.Bar(
                    x=mine["end"] - mine["start"],
                    base=mine["start"] - start,
                    y=[escape(worker) for worker in mine["worker"]],
                    orientation="h",
                    marker={"color": colour, "line": {"width": 0.5, "color": "white"}},
                    name="held-out" if split == "holdout" else split,
                    hovertext=[
                        f"{escape(str(key))}<br>{number(seconds)} s"
                        for key, seconds in zip(mine["id"], mine["end"] - mine["start"], strict=True)
                    ],
                    hoverinfo="text",
                )
            )
    for index, moment in enumerate(attempts, 1):
        figure.add_vline(
            x=moment - start,
            line={"color": INK, "dash": "dot"},
            annotation_text=f"attempt {index}",
            annotation_font_size=11,
        )
    room = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    figure.update_layout(
        barmode="overlay", legend={"y": -75 / room}, margin={"b": 90}, height=figure.layout.height + 30
    )
    figure.update_xaxes(title="seconds since the start")
    figure.update_yaxes(type="category")
    return figure


def _markers(
    figure: go.Figure,
    view: View,
    rows: np.ndarray,
    xs: FloatArray,
    ys: FloatArray,
    x_bars: FloatArray | None = None,
    y_bars: FloatArray | None = None,
) -> None:
    for name, mine, colour in (
        ("dominated", rows[~view.pareto[rows]], DOMINATED),
        ("Pareto-optimal", rows[view.pareto[rows]], MEASURED),
    ):
        if not len(mine):
            continue
        bars = {}
        for axis, three in (("error_x", x_bars), ("error_y", y_bars)):
            if three is not None:
                bars[axis] = {
                    "type": "data",
                    "symmetric": False,
                    "array": np.nan_to_num(np.maximum(three[mine, 2] - three[mine, 0], 0.0)),
                    "arrayminus": np.nan_to_num(np.maximum(three[mine, 0] - three[mine, 1], 0.0)),
                    "thickness": 0.8,
                    "width": 2,
                    "color": "rgba(128,128,128,0.45)",
                }
        figure.add_trace(
            (go.Scattergl if len(mine) > 1000 else go.Scatter)(
                x=xs[mine],
                y=ys[mine],
                mode="markers",
                marker={"color": colour, "size": 8},
                customdata=customdata(view, mine),
                hovertemplate="%{customdata[1]}<extra></extra>",
                name=name,
                **bars,
            )
        )


def _scale(values: FloatArray) -> dict[str, object]:
    log = len(values) > 1 and values.min() > 0 and values.max() > 30 * values.min()
    return {"type": "log", **LOG_TICKS} if log else {"type": "linear"}
