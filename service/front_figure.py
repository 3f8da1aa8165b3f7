"""Measured and predicted quality against a price.

Every marker that stands for a point carries the id of the point first in its ``customdata``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from .canvas import Axis, add_note, base_figure, error_bars
from .front_document import Front, Point, Surrogate
from .hover import hover_text
from .labels import label, number, price_label, unit
from .palette import BEST, DOMINATED, INK, LIMIT, MEASURED, PREDICTED, format_colour, symbol


def front_figure(front: Front, price: str, split: str = "validation", selected: str | None = None) -> go.Figure:
    """Measured quality against a price, with the intervals of both.

    Grey points are dominated in the objectives of the run; hollow ones miss a constraint. The step line is the front
    of what was measured in this plane. On a logarithmic axis, values of 0 or less sit on its lower edge.

    Args:
        front: the run.
        price: metric on the x axis.
        split: ``validation`` or ``holdout``.
        selected: id of a point to ring.

    Returns:
        The figure; points without a finite quality or price are left out.
    """
    shown = [p for p in front.points if math.isfinite(p.price(price)) and math.isfinite(p.quality(split))]
    axis = Axis([p.quality_interval(split) for p in shown])
    xs, ys = [p.price(price) for p in shown], [p.quality(split) for p in shown]
    figure = base_figure(560)
    _add_predicted(figure, front, price, shown, axis)
    steps = lower_front(xs, ys)
    figure.add_trace(
        go.Scatter(
            x=[xs[i] for i in steps],
            y=[axis.place(ys[i]) for i in steps],
            mode="lines",
            line={"shape": "hv", "color": MEASURED, "width": 1.5},
            name="measured front",
            hoverinfo="skip",
        )
    )
    plain = [p for p in shown if not p.baseline and p.id != front.best]
    plain.sort(key=lambda p: not p.feasible)  # the key of the legend is the first marker
    groups = [
        ("dominated", [p for p in plain if not p.pareto], {"color": DOMINATED, "size": 8}),
        ("Pareto-optimal", [p for p in plain if p.pareto], {"color": MEASURED, "size": 9}),
    ]
    for name, points, marker in groups:
        symbols = ["circle" if p.feasible else "circle-open" for p in points]
        _add_points(figure, front, points, price, split, axis, name=name, marker={**marker, "symbol": symbols})
    uniform = [p for p in shown if p.baseline]
    _add_points(
        figure,
        front,
        uniform,
        price,
        split,
        axis,
        name="uniform",
        mode="markers+text",
        cliponaxis=False,
        text=[f"uniform {escape(p.baseline or '')}" for p in uniform],
        textposition=text_positions([(p.price(price), p.quality(split)) for p in uniform], xs, axis),
        marker={
            "color": [format_colour(p.baseline or "") for p in uniform],
            "size": 13,
            "symbol": [symbol("diamond", p.baseline or "") for p in uniform],
            "line": {"color": INK, "width": 1.2},
        },
    )
    star = {"color": BEST, "size": 17, "symbol": "star", "line": {"color": "white", "width": 1}}
    best = [p for p in shown if p.id == front.best]
    _add_points(figure, front, best, price, split, axis, name="best", marker=star)
    ring = [p for p in shown if p.id == selected]
    if ring:
        hollow = {"color": BEST, "size": 22, "symbol": "circle-open", "line": {"width": 2.5}}
        _add_points(figure, front, ring, price, split, axis, name="selected", marker=hollow, error_x=None, error_y=None)
    _add_limits(figure, front, price, axis)
    figure.update_xaxes(title=escape(price_label(front, price)))
    figure.update_yaxes(title=f"{escape(label(front.metric))}, {'held-out' if split == 'holdout' else split}")
    axis.apply(figure)
    if not shown:
        add_note(figure, "no point has a finite quality and price")
    return figure


def lower_front(xs: Sequence[float], ys: Sequence[float]) -> list[int]:
    """Indices of the non-dominated (x, y), both minimized, by increasing x; NaN and infinity never qualify."""
    finite = [index for index in range(len(xs)) if math.isfinite(xs[index]) and math.isfinite(ys[index])]
    kept: list[int] = []
    for index in sorted(finite, key=lambda i: (xs[i], ys[i])):
        if not kept or ys[index] < ys[kept[-1]]:
            kept.append(index)
    return kept


def _add_points(
    figure: go.Figure, front: Front, points: Sequence[Point], price: str, split: str, axis: Axis, **options: Any
) -> None:
    """One trace of points with both error bars; an empty one is left out of the legend by not being added."""
    if not points:
        return
    colour = options["marker"]["color"]
    bar = colour if isinstance(colour, str) else INK
    options.setdefault("error_x", error_bars([p.prices[price] for p in points], bar))
    options.setdefault("error_y", error_bars([p.quality_interval(split) for p in points], bar))
    options.setdefault("mode", "markers")
    figure.add_trace(
        go.Scatter(
            x=[p.price(price) for p in points],
            y=[axis.place(p.quality(split)) for p in points],
            customdata=[[p.id, hover_text(front, p)] for p in points],
            hovertemplate="%{customdata[1]}<extra></extra>",
            **options,
        )
    )


def _add_predicted(figure: go.Figure, front: Front, price: str, shown: Sequence[Point], axis: Axis) -> None:
    """The exact front of the additive model where it knows this price, and the prediction of every shown point."""
    curve = _predicted_curve(front, price)
    if curve:
        law = front.surrogate or Surrogate()
        bounds = [law.interval(loss) for _, loss in curve]
        shape = {"shape": "hv", "color": PREDICTED, "dash": "dot"}
        band = [("low", None), ("high", "tonexty")] if any(bound.above for bound in bounds) else []
        for end, fill in band:
            figure.add_trace(
                go.Scatter(
                    x=[cost for cost, _ in curve],
                    y=[axis.place(getattr(bound, end)) for bound in bounds],
                    mode="lines",
                    line={**shape, "width": 0},
                    fill=fill,
                    fillcolor="rgba(139,95,191,0.15)",
                    name="± 1 standard deviation",
                    showlegend=fill is not None,
                    hoverinfo="skip",
                )
            )
        figure.add_trace(
            go.Scatter(
                x=[cost for cost, _ in curve],
                y=[axis.place(loss) for _, loss in curve],
                mode="lines",
                line={**shape, "width": 1.5},
                name="predicted front (additive model)",
                hovertemplate="predicted front: %{x:.4g}, %{y:.4g}<extra></extra>",
            )
        )
    points = [p for p in shown if math.isfinite(p.predicted_quality)]
    if points:
        figure.add_trace(
            go.Scatter(
                x=[p.price(price) for p in points],
                y=[axis.place(p.predicted_quality) for p in points],
                mode="markers",
                marker={"symbol": "x-thin", "size": 6, "line": {"color": PREDICTED, "width": 1.3}},
                opacity=0.7,
                name="predicted",
                customdata=[[p.id, hover_text(front, p)] for p in points],
                hovertemplate="%{customdata[1]}<extra></extra>",
            )
        )


def _predicted_curve(front: Front, price: str) -> list[tuple[float, float]]:
    """The predicted front as (price, quality), empty unless it is a front in this price.

    The document holds the exact front in one price only; seen against another, its points dominate one another.
    """
    curve = sorted(
        (entry.cost[price], entry.loss)
        for entry in front.predicted_front
        if price in entry.cost and math.isfinite(entry.cost[price]) and math.isfinite(entry.loss)
    )
    falls = all(one[1] >= other[1] for one, other in itertools.pairwise(curve))
    return curve if falls else []


def _add_limits(figure: go.Figure, front: Front, price: str, axis: Axis) -> None:
    """Constraints of the run that lie in this plane."""
    line = {"color": LIMIT, "dash": "dash", "width": 1.5}
    if price in front.constraints:
        limit = front.constraints[price]
        text = f"limit: {number(limit)} {unit(price)}".rstrip()
        figure.add_vline(x=limit, line=line, annotation={"text": text, "font": {"color": LIMIT}, "yanchor": "bottom"})
    for name in ("quality", front.metric):
        limit = front.constraints.get(name, math.nan)
        if math.isfinite(limit) and (limit > 0 or not axis.log):
            figure.add_hline(
                y=limit, line=line, annotation={"text": f"limit: {number(limit)}", "font": {"color": LIMIT}}
            )
            break


def text_positions(points: Sequence[tuple[float, float]], xs: Sequence[float], axis: Axis) -> list[str]:
    """Where each label goes: the first corner at which it meets no earlier label and is not cut off.

    Args:
        points: (x, y) of the labelled markers.
        xs: every x of the plot.
        axis: the y axis.

    Returns:
        Plotly text positions. A label counts as 11 % of the plot wide and 5 % high.
    """
    width, height, span = 0.11, 0.05, (max(xs) - min(xs)) or 1.0 if xs else 1.0
    corners = {
        "top right": (0.0, 0.5),
        "bottom right": (0.0, -0.5),
        "top left": (-1.0, 0.5),
        "bottom left": (-1.0, -0.5),
    }
    taken: list[tuple[float, float]] = []
    chosen = []
    for x, y in points:
        places = {
            name: ((x - min(xs)) / span + right * width, axis.fraction(y) + up * height)
            for name, (right, up) in corners.items()
        }
        free = [
            name
            for name, (left, middle) in places.items()
            if left + width <= 1.02 and all(abs(left - a) >= width or abs(middle - b) >= height for a, b in taken)
        ]
        fallback = "top left" if places["top right"][0] + width > 1.02 else "top right"
        chosen.append(free[0] if free else fallback)
        taken.append(places[chosen[-1]])
    return chosen
