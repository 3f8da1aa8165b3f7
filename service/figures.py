"""The pictures of a run: pure functions from a front to a Plotly figure.

Colours are safe for colour-blind readers and mean the same everywhere: weight bits run from warm (coarse) to cold
(fine); what was measured is green, what was predicted purple, what is dominated grey. Every marker that stands for a
point carries the id of the point first in its ``customdata``. Figures have no title (the page says what they are), a
transparent background, and a fixed height but no width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from .view import (
    Front,
    Interval,
    Point,
    Surrogate,
    count,
    format_order,
    histogram,
    label,
    lower_front,
    number,
    price_label,
    quantizes_activations,
    rank_correlation,
    share_text,
    unit,
    weight_bits,
)

BITS_COLOURS = {
    2: "#b8400e",
    3: "#dd7a2e",
    4: "#f2b134",
    5: "#d9cf7f",
    6: "#9ccbb2",
    7: "#79bfd6",
    8: "#56a5dc",
    16: "#1f5fa8",
    32: "#54409b",
}
UNKNOWN, DOMINATED, GRID, INK = "#8a8a8a", "#a3a3a3", "rgba(128,128,128,0.25)", "#6b6b6b"
MEASURED, PREDICTED, BEST, LIMIT = "#00916e", "#8b5fbf", "#d01c6f", "#c03030"
ROW_PX = 18
LOG_DECADES = 1.5


def format_colour(format_name: str) -> str:
    """The colour of a format, by its weight bits."""
    return BITS_COLOURS.get(weight_bits(format_name) or 0, UNKNOWN)


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
    axis = _Axis([_quality(p, split) for p in shown])
    xs, ys = [p.price(price) for p in shown], [p.quality(split) for p in shown]
    figure = _figure(560)
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
        textposition=_text_positions([(p.price(price), p.quality(split)) for p in uniform], xs, axis),
        marker={
            "color": [format_colour(p.baseline or "") for p in uniform],
            "size": 13,
            "symbol": [_symbol("diamond", p.baseline or "") for p in uniform],
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
        _say(figure, "no point has a finite quality and price")
    return figure


def layer_map(front: Front, point: Point) -> go.Figure:
    """The format of every layer of one point: layers down, formats across; offered ones as small hollow squares.

    Args:
        front: the run.
        point: the point.

    Returns:
        The figure; ``customdata`` of a chosen square is [point id, layer, format]. Layers that must share a format
        are joined by a line in the column "tied".
    """
    names = [site.name for site in front.model.sites] or list(point.config)
    formats = format_order(front, [point])
    figure = _layers_figure(names)
    offered = [(row, name) for row, site in enumerate(front.model.sites) for name in site.formats if name in formats]
    figure.add_trace(
        go.Scatter(
            x=[formats.index(name) for _, name in offered],
            y=[row for row, _ in offered],
            mode="markers",
            marker={"symbol": "square-open", "size": 6, "color": DOMINATED, "line": {"width": 1}},
            name="offered",
            hoverinfo="skip",
        )
    )
    sizes = {site.name: site for site in front.model.sites}
    for column, name in enumerate(formats):
        rows = [row for row, site in enumerate(names) if point.config.get(site) == name]
        texts = []
        for row in rows:
            site = sizes.get(names[row])
            detail = "" if site is None else f"<br>{escape(site.kind)}, {site.elements:,} weights, {site.macs:,.0f} MAC"
            texts.append(f"<b>{escape(names[row])}</b>: {escape(name)}{detail}")
        figure.add_trace(
            go.Scatter(
                x=[column] * len(rows),
                y=rows,
                mode="markers",
                marker=_square(name, 14),
                name=escape(name),
                customdata=[[point.id, names[row], name, text] for row, text in zip(rows, texts, strict=True)],
                hovertemplate="%{customdata[3]}<extra></extra>",
            )
        )
    ticks = list(formats)
    if _add_ties(figure, front, names, len(formats)):
        ticks.append("tied")
    figure.update_xaxes(
        tickvals=list(range(len(ticks))),
        ticktext=[escape(tick) for tick in ticks],
        range=[-0.6, len(ticks) - 0.4],
        side="top",
        title="format",
        fixedrange=True,
    )
    return figure


def points_map(front: Front, price: str, points: Sequence[Point] | None = None, limit: int = 40) -> go.Figure:
    """The formats of several points side by side: columns are points by rising price, rows are layers.

    Args:
        front: the run.
        price: metric that orders the columns.
        points: the columns; by default the Pareto-optimal, the uniform and the best points.
        limit: with more points, so many are taken at even steps; best and uniform ones stay.

    Returns:
        The figure; ``customdata`` of a square is [point id, layer, format].
    """
    wanted = [p for p in front.points if p.pareto or p.baseline or p.id == front.best] if points is None else points
    priced = sorted((p for p in wanted if math.isfinite(p.price(price))), key=_by_price(price))
    columns = _thin(priced, limit, keep={p.id for p in priced if p.baseline or p.id == front.best})
    names = [site.name for site in front.model.sites]
    row_of = {name: row for row, name in enumerate(names)}
    figure = _layers_figure(names)
    size = max(5, min(14, round(560 / max(1, len(columns)))))
    for name in format_order(front, columns):
        cells = [(x, p, site) for x, p in enumerate(columns) for site, f in p.config.items() if f == name]
        cells = [cell for cell in cells if cell[2] in row_of]
        figure.add_trace(
            go.Scatter(
                x=[x for x, _, _ in cells],
                y=[row_of[site] for _, _, site in cells],
                mode="markers",
                marker=_square(name, size),
                name=escape(name),
                customdata=[[p.id, site, name, escape(f"{p.label}, {site}: {name}")] for _, p, site in cells],
                hovertemplate="%{customdata[3]}<extra></extra>",
            )
        )
    figure.update_xaxes(
        tickvals=list(range(len(columns))),
        ticktext=[_column_name(front, p, price) for p in columns],
        tickangle=-90,
        range=[-0.7, len(columns) - 0.3],
        side="top",
        title=f"point, {escape(price_label(front, price))}"
        + (f" ({len(columns)} of {len(priced)})" if len(columns) < len(priced) else ""),
    )
    figure.update_layout(height=figure.layout.height + 100, margin_t=200)
    return figure


def sensitivity_figure(front: Front, proxy: str) -> go.Figure:
    """Predicted loss of every layer in every format, on a logarithmic axis.

    Scores of 0 or less are hollow triangles at the left edge; formats that are not offered are absent.

    Args:
        front: the run.
        proxy: key of ``front.sensitivity``.

    Returns:
        The figure; ``customdata`` is [layer, format, score].
    """
    names = [site.name for site in front.model.sites]
    table = front.sensitivity[proxy].values
    cells = [
        (row, column, value)
        for row, values in enumerate(table[: len(names)])
        for column, value in enumerate(values[: len(front.model.formats)])
        if value is not None and math.isfinite(value)
    ]
    positive = [value for _, _, value in cells if value > 0]
    floor = min(positive) / 3 if positive else 0.0
    figure = _layers_figure(names)
    for column, name in enumerate(front.model.formats):
        mine = [(row, value) for row, at, value in cells if at == column]
        figure.add_trace(
            go.Scatter(
                x=[value if value > 0 or not positive else floor for _, value in mine],
                y=[row for row, _ in mine],
                mode="markers",
                marker={
                    "color": format_colour(name),
                    "size": 9,
                    "symbol": [_symbol("circle", name) if value > 0 else "triangle-left-open" for _, value in mine],
                    "line": {"width": [0.6 if value > 0 else 2 for _, value in mine], "color": INK},
                },
                name=escape(name),
                customdata=[
                    [names[row], name, value, f"<b>{escape(names[row])}</b>: {escape(name)}<br>{number(value)}"]
                    for row, value in mine
                ],
                hovertemplate="%{customdata[3]}<extra></extra>",
            )
        )
    figure.update_xaxes(title=f"{escape(proxy)}: predicted loss of the layer alone", side="top")
    if positive:
        figure.update_xaxes(type="log", range=[math.log10(floor) - 0.1, math.log10(max(positive)) + 0.2], **_LOG_TICKS)
    if not cells:
        _say(figure, "no score")
    return figure


def agreement_figure(front: Front, split: str = "validation") -> go.Figure:
    """Measured against predicted quality of every point, with the rank correlation and the line of equality.

    Args:
        front: the run.
        split: ``validation`` or ``holdout``.

    Returns:
        The figure; the annotation holds Spearman's rank correlation and the number of points.
    """
    shown = [p for p in front.points if math.isfinite(_predicted(p)) and math.isfinite(p.quality(split))]
    across = _Axis([Interval(value=_predicted(p)) for p in shown])
    axis = _Axis([_quality(p, split) for p in shown])
    figure = _figure(480)
    xs = [across.place(_predicted(p)) for p in shown]
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
        symbol = [_symbol("diamond", p.baseline) if p.baseline else "circle" for p in points]
        edge = {"color": INK, "width": 1 if name == "uniform" else 0}
        marker = {"color": colours, "size": 12 if name == "uniform" else 8, "symbol": symbol, "line": edge}
        figure.add_trace(
            go.Scatter(
                x=[across.place(_predicted(p)) for p in points],
                y=[axis.place(p.quality(split)) for p in points],
                error_y=_bars([_quality(p, split) for p in points], PREDICTED),
                mode="markers",
                marker=marker,
                name=name,
                customdata=[[p.id, _hover(front, p)] for p in points],
                hovertemplate="%{customdata[1]}<extra></extra>",
            )
        )
    found = rank_correlation([_predicted(p) for p in shown], [p.quality(split) for p in shown])
    text = f"Spearman ρ = {'undefined' if found is None else f'{found:.3f}'}, {len(shown)} points"
    figure.add_annotation(
        text=text, xref="paper", yref="paper", x=0.01, y=0.99, xanchor="left", yanchor="top", showarrow=False
    )
    figure.update_xaxes(title=f"predicted {escape(label(front.metric))}")
    figure.update_yaxes(title=f"measured {escape(label(front.metric))}")
    axis.apply(figure)
    across.apply(figure, "x")
    return figure


_LOG_TICKS: dict[str, Any] = {
    "dtick": 1,
    "exponentformat": "power",
    "tickfont": {"size": 11},
    "minor": {"showgrid": False},
}


class _Axis:
    """Where values go: logarithmic if the positive ones span more than 1.5 decades, else linear.

    On a logarithmic axis, values of 0 or less are placed at ``low``.
    """

    def __init__(self, intervals: Sequence[Interval]) -> None:
        values = [interval.value for interval in intervals]
        ends = values + [i.value - i.below for i in intervals] + [i.value + i.above for i in intervals]
        positive = [value for value in values if value > 0]
        self.log = bool(positive) and math.log10(max(positive) / min(positive)) > LOG_DECADES
        if self.log:
            some_not = any(value <= 0 for value in values)
            self.low = min(end for end in ends if end > min(positive) / 10) / (3 if some_not else 1)
        else:
            self.low = min(ends, default=0.0)
        self.high = max(ends, default=1.0)

    def place(self, value: float) -> float:
        """The coordinate at which a value is drawn."""
        return max(value, self.low) if self.log and value <= 0 else value

    def fraction(self, value: float) -> float:
        """How far up the axis a value is drawn, 0 to 1."""
        ends = (self.place(value), self.low, self.high)
        at, low, high = (math.log10(end) for end in ends) if self.log else ends
        return (at - low) / (high - low) if high > low else 0.5

    def apply(self, figure: go.Figure, axis: str = "y") -> None:
        """Set type and range of an axis, with a margin of 4 % on both sides."""
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        margin = 0.04 * (high - low) or 0.05 * abs(high) or 0.5
        update = figure.update_xaxes if axis == "x" else figure.update_yaxes
        update(type="log" if self.log else "linear", range=[low - margin, high + margin])
        if self.log:
            update(**_LOG_TICKS)


def _figure(height: int) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        height=height,
        margin={"l": 60, "r": 20, "t": 30, "b": 60},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "traceorder": "normal", "yanchor": "top", "y": -0.2, "x": 0},
        hoverlabel={"align": "left", "bgcolor": "#2b2f36", "bordercolor": DOMINATED, "font": {"color": "white"}},
        hovermode="closest",
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": DOMINATED, "activecolor": INK},
    )
    axis = {"gridcolor": GRID, "zeroline": False, "automargin": True, "ticks": "outside", "tickcolor": GRID}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def _layers_figure(names: Sequence[str]) -> go.Figure:
    figure = _figure(ROW_PX * max(4, len(names)) + 150)
    figure.update_layout(legend={"yanchor": "top", "y": 0, "yref": "paper"}, margin={"t": 100, "b": 50})
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[escape(_elide(name)) for name in names],
        range=[len(names) - 0.4, -0.6],
        tickfont={"size": 11},
    )
    return figure


def _elide(name: str, length: int = 38) -> str:
    head = length // 3
    return name if len(name) <= length else f"{name[:head]}…{name[head + 1 - length :]}"


def _symbol(shape: str, format_name: str) -> str:
    """Plain for weight-only formats, crossed for those that quantize activations too."""
    return f"{shape}-x" if quantizes_activations(format_name) else shape


def _square(format_name: str, size: int) -> dict[str, Any]:
    return {
        "symbol": _symbol("square", format_name),
        "size": size,
        "color": format_colour(format_name),
        "line": {"color": INK, "width": 1 if quantizes_activations(format_name) else 0.5},
    }


def _predicted(point: Point) -> float:
    return point.predicted.get("quality", math.nan)


def _quality(point: Point, split: str) -> Interval:
    found = point.measured.holdout if split == "holdout" else point.measured.validation
    return found or Interval(value=math.nan)


def _bars(intervals: Sequence[Interval], colour: str) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [interval.above for interval in intervals],
        "arrayminus": [interval.below for interval in intervals],
        "thickness": 1,
        "width": 3,
        "color": f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:7], 16)},0.55)",
    }


def _add_points(
    figure: go.Figure, front: Front, points: Sequence[Point], price: str, split: str, axis: _Axis, **options: Any
) -> None:
    """One trace of points with both error bars; an empty one is left out of the legend by not being added."""
    if not points:
        return
    colour = options["marker"]["color"]
    bar = colour if isinstance(colour, str) else INK
    options.setdefault("error_x", _bars([p.prices[price] for p in points], bar))
    options.setdefault("error_y", _bars([_quality(p, split) for p in points], bar))
    options.setdefault("mode", "markers")
    figure.add_trace(
        go.Scatter(
            x=[p.price(price) for p in points],
            y=[axis.place(p.quality(split)) for p in points],
            customdata=[[p.id, _hover(front, p)] for p in points],
            hovertemplate="%{customdata[1]}<extra></extra>",
            **options,
        )
    )


def _add_predicted(figure: go.Figure, front: Front, price: str, shown: Sequence[Point], axis: _Axis) -> None:
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
    points = [p for p in shown if math.isfinite(_predicted(p))]
    if points:
        figure.add_trace(
            go.Scatter(
                x=[p.price(price) for p in points],
                y=[axis.place(_predicted(p)) for p in points],
                mode="markers",
                marker={"symbol": "x-thin", "size": 6, "line": {"color": PREDICTED, "width": 1.3}},
                opacity=0.7,
                name="predicted",
                customdata=[[p.id, _hover(front, p)] for p in points],
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


def _add_limits(figure: go.Figure, front: Front, price: str, axis: _Axis) -> None:
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


def _text_positions(points: Sequence[tuple[float, float]], xs: Sequence[float], axis: _Axis) -> list[str]:
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


def _hover(front: Front, point: Point) -> str:
    """Id, metrics with units and intervals, and the histogram of formats as bars of text."""
    quality_unit = unit(front.metric)
    about = [*([point.id] if point.baseline else []), *([point.origin] if point.origin else [])]
    lines = [f"<b>{escape(point.label)}</b>" + (f" ({escape(', '.join(about))})" if about else "")]
    for title, measured in (("validation", point.measured.validation), ("held-out", point.measured.holdout)):
        if measured is not None:
            lines.append(f"{title} {escape(front.metric)}: {measured.text(quality_unit)}")
    if math.isfinite(_predicted(point)):
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


def _column_name(front: Front, point: Point, price: str) -> str:
    mark = "★ " if point.id == front.best else ""
    return f"{mark}{escape(point.label)}, {number(point.price(price))}"


def _by_price(price: str) -> Callable[[Point], tuple[float, float]]:
    """Sort key: rising price, falling loss where prices are equal."""

    def key(point: Point) -> tuple[float, float]:
        quality = point.quality()
        return point.price(price), -quality if math.isfinite(quality) else -math.inf

    return key


def _thin(points: Sequence[Point], limit: int, keep: set[str]) -> list[Point]:
    """At most ``limit`` points at even steps, those in ``keep`` first."""
    if len(points) <= limit:
        return list(points)
    others = [p for p in points if p.id not in keep]
    room = max(0, limit - len(points) + len(others))
    chosen = {others[round(i * (len(others) - 1) / max(1, room - 1))].id for i in range(min(room, len(others)))} | keep
    return [p for p in points if p.id in chosen]


def _add_ties(figure: go.Figure, front: Front, names: Sequence[str], column: int) -> bool:
    """Join tied layers by a line with dots; overlapping ties get lanes side by side."""
    position = {name: row for row, name in enumerate(names)}
    lanes: list[int] = []
    for tie in front.model.ties:
        rows = sorted(position[site] for site in tie.sites if site in position)
        if len(rows) < 2:
            continue
        lane = next((index for index, end in enumerate(lanes) if end < rows[0]), len(lanes))
        lanes[lane : lane + 1] = [rows[-1]]
        figure.add_trace(
            go.Scatter(
                x=[column + 0.12 * (lane % 5)] * len(rows),
                y=rows,
                mode="lines+markers",
                line={"color": UNKNOWN, "width": 1.5},
                marker={"size": 5, "color": UNKNOWN},
                name="tied: share one format",
                legendgroup="ties",
                showlegend=len(lanes) == 1
                and lane == 0
                and not any(t.name == "tied: share one format" for t in figure.data),
                customdata=[["", names[row], f"tied: {escape(tie.reason)}"] for row in rows],
                hovertemplate="%{customdata[2]}<extra></extra>",
            )
        )
    return bool(lanes)


def _say(figure: go.Figure, text: str) -> None:
    figure.add_annotation(text=text, xref="paper", yref="paper", x=0.5, y=0.5, showarrow=False, font={"size": 16})
