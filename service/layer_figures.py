"""Pictures with a row for every layer, in the order of the forward pass: formats of one point, of many, sensitivity.

Every square that stands for a layer of a point carries the id of the point first in its ``customdata``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

import plotly.graph_objects as go

from .canvas import LOG_TICKS, add_note, base_figure
from .front_document import Front, Point
from .labels import number, price_label
from .palette import DOMINATED, INK, UNKNOWN, format_colour, square_marker, symbol
from .tables import format_order

ROW_PX = 18


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
                marker=square_marker(name, 14),
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
                marker=square_marker(name, size),
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
                    "symbol": [symbol("circle", name) if value > 0 else "triangle-left-open" for _, value in mine],
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
        figure.update_xaxes(type="log", range=[math.log10(floor) - 0.1, math.log10(max(positive)) + 0.2], **LOG_TICKS)
    if not cells:
        add_note(figure, "no score")
    return figure


def _layers_figure(names: Sequence[str]) -> go.Figure:
    figure = base_figure(ROW_PX * max(4, len(names)) + 150)
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
