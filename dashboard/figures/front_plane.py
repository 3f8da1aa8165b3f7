"""Measured points in the plane of two objectives, a third one as colour; thousands of points drawn by WebGL."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from ...search.allocation import knee
from ...service.canvas import LOG_DECADES, LOG_TICKS, Axis, add_note, base_figure
from ...service.document_parts import Interval
from ...service.front_figure import text_positions
from ...service.labels import label
from ...service.palette import BEST, DOMINATED, INK, LIMIT, MEASURED, PREDICTED, format_colour, symbol
from ..answers import Answer
from ..view import FloatArray, View
from .hover import customdata

QUALITY = "quality"
MOST_GREY = 3000
"""Dominated points that are drawn, evenly along the x axis; the caption says when there are more."""
_WEBGL = 1000  # points from which a trace is drawn by WebGL
_BARS = 400  # points up to which intervals are drawn for all shown, beyond only for the front


def front_plane(
    view: View,
    x: str,
    y: str = QUALITY,
    *,
    split: str = "validation",
    colour: str | None = None,
    selected: str | None = None,
    answer: Answer | None = None,
) -> go.Figure:
    """The measured points of a job.

    Grey points are dominated in the objectives of the job, hollow ones miss a constraint; the step line is the front in
    this plane; diamonds are the uniform configurations; the star is the search's best point, the ring the selected one,
    the cross the answer to the budgets (hollow where it is only predicted).

    Args:
        view: the job.
        x: a price, or ``quality``.
        y: the other axis.
        split: of the quality: ``validation`` or ``holdout``.
        colour: a price shown as colour of the front's points, ``None``: none.
        selected: id of a point to ring.
        answer: to the budgets.

    Returns:
        The figure; points without both values are left out.
    """
    xs, ys = values(view, x, split), values(view, y, split)
    shown = np.flatnonzero(np.isfinite(xs[:, 0]) & np.isfinite(ys[:, 0]))
    figure = base_figure(560)
    axis = Axis([Interval(value=value, low=low, high=high) for value, low, high in ys[_telling(view, shown)].tolist()])
    axis.apply(figure)
    figure.update_yaxes(title=title(view, y, split))
    across = xs[shown, 0]
    log = len(across) > 1 and across.min() > 0 and np.log10(across.max() / across.min()) > LOG_DECADES
    figure.update_xaxes(title=title(view, x, split), type="log" if log else "linear", **(LOG_TICKS if log else {}))
    steps = shown[lower_left(xs[shown, 0], ys[shown, 0])]
    figure.add_trace(
        go.Scatter(
            x=xs[steps, 0],
            y=[axis.place(value) for value in ys[steps, 0].tolist()],
            mode="lines",
            line={"shape": "hv", "color": MEASURED, "width": 1.5},
            name="front in this plane",
            hoverinfo="skip",
        )
    )
    uniform = [row for row in view.uniform_rows if row in set(shown.tolist())]
    plain = np.setdiff1d(shown, np.array(uniform, dtype=np.int64))
    grey, front = plain[~view.pareto[plain]], plain[view.pareto[plain]]
    drawn = thinned(grey, xs[grey, 0], MOST_GREY)
    few = len(front) + len(drawn) <= _BARS
    _points(figure, view, drawn, xs, ys, split, few, name="dominated", marker={"color": DOMINATED, "size": 7})
    tint: dict[str, Any] = {"color": MEASURED, "size": 9}
    if colour is not None:
        scale = view.prices[colour][front, 0]
        ends = {"cmin": float(scale.min()), "cmax": float(scale.max())} if len(scale) else {}
        bar = {"title": escape(label(colour))}
        tint = {"color": scale, "size": 9, "colorscale": "Viridis", "showscale": True, "colorbar": bar, **ends}
    _points(figure, view, front, xs, ys, split, True, name="Pareto-optimal", marker=tint)
    _uniform(figure, view, uniform, xs, ys, split, axis)
    best = view.rows.get(view.best) if view.best is not None else None
    if best is not None and best in shown:
        star = {"color": BEST, "size": 17, "symbol": "star", "line": {"color": "white", "width": 1}}
        _points(figure, view, np.array([best]), xs, ys, split, True, name="best", marker=star)
    chosen = view.rows.get(selected) if selected is not None else None
    if chosen is not None and chosen in shown:
        ring = {"color": BEST, "size": 22, "symbol": "circle-open", "line": {"width": 2.5}}
        _points(figure, view, np.array([chosen]), xs, ys, split, False, name="selected", marker=ring)
    if answer is not None:
        _answer(figure, view, answer, x, y, xs, ys)
    for metric, line in ((x, figure.add_vline), (y, figure.add_hline)):
        if metric in view.constraints:
            line(
                view.constraints[metric],
                line={"color": LIMIT, "dash": "dash", "width": 1.5},
                annotation_text="constraint",
                annotation_font_color=LIMIT,
            )
    bend = knee_row(steps, xs, ys)
    if bend is not None:
        figure.add_annotation(
            x=np.log10(xs[bend, 0]) if log else xs[bend, 0],
            y=np.log10(axis.place(float(ys[bend, 0]))) if axis.log else ys[bend, 0],
            text="knee",
            showarrow=True,
            arrowhead=2,
            ax=-28,
            ay=28,
            font={"color": MEASURED},
            arrowcolor=MEASURED,
        )
    if not len(shown):
        add_note(figure, "nothing has been measured yet" if not len(view) else "no point has both values")
    return figure


def values(view: View, metric: str, split: str) -> FloatArray:
    """A metric of every point with its interval [points, 3]."""
    return view.quality[split] if metric == QUALITY else view.prices[metric]


def title(view: View, metric: str, split: str) -> str:
    """Of an axis, with its unit and where the numbers come from."""
    if metric == QUALITY:
        return f"{escape(label(view.metric))}, {'held-out' if split == 'holdout' else split}"
    source = view.price_tables[metric].source if metric in view.price_tables else ""
    return escape(label(metric)) + (f", {escape(source)}" if source not in ("", "exact") else "")


def lower_left(xs: NDArray[np.float64], ys: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of the non-dominated (x, y), both minimised, by rising x."""
    order = np.lexsort((ys, xs))
    if not len(order):
        return order
    best = np.minimum.accumulate(ys[order])
    kept: NDArray[np.int64] = order[np.concatenate([[True], ys[order][1:] < best[:-1]])]
    return kept


def knee_row(steps: NDArray[np.int64], xs: FloatArray, ys: FloatArray) -> int | None:
    """The row of the knee of a front, ``None`` for fewer than three points."""
    if len(steps) < 3:
        return None
    return int(steps[knee(xs[steps, 0], ys[steps, 0], log_loss=bool((ys[steps, 0] > 0).all()))])


def thinned(rows: NDArray[np.int64], xs: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """At most so many rows, evenly along x."""
    if len(rows) <= most:
        return rows
    order = np.argsort(xs, kind="stable")
    kept: NDArray[np.int64] = rows[order[np.unique(np.linspace(0, len(rows) - 1, most).astype(int))]]
    return kept


def _points(
    figure: go.Figure,
    view: View,
    rows: NDArray[np.int64],
    xs: FloatArray,
    ys: FloatArray,
    split: str,
    bars: bool,
    **options: Any,
) -> None:
    """One trace; an empty one is not added. Points that miss a constraint are hollow."""
    marker, mode = options.pop("marker"), options.pop("mode", "markers")
    colour = marker["color"] if isinstance(marker["color"], str) else INK
    kind = go.Scattergl if len(rows) > _WEBGL else go.Scatter
    fits = view.feasible[rows]
    groups = [fits, ~fits] if "symbol" not in marker else [np.ones(len(rows), dtype=bool)]
    for index, here in enumerate(each for each in groups if each.any()):
        mine = rows[here]
        look: dict[str, Any] = {"symbol": "circle" if view.feasible[mine[0]] else "circle-open"}
        look |= {name: _part(value, here) for name, value in marker.items()}
        if index and "showscale" in marker:
            look["showscale"] = False
        if bars:
            options |= {"error_x": _bars(xs[mine], colour), "error_y": _bars(ys[mine], colour)}
        figure.add_trace(
            kind(
                x=xs[mine, 0],
                y=ys[mine, 0],
                mode=mode,
                marker=look,
                customdata=customdata(view, mine),
                hovertemplate="%{customdata[1]}<extra></extra>",
                legendgroup=options["name"],
                showlegend=not index,
                **{name: _part(value, here) for name, value in options.items()},
            )
        )


def _part(value: Any, here: NDArray[np.bool_]) -> Any:
    """What belongs to some of the points, where there is one value a point."""
    if isinstance(value, np.ndarray):
        return value[here]
    return [each for each, wanted in zip(value, here, strict=True) if wanted] if isinstance(value, list) else value


def _bars(three: FloatArray, colour: str) -> dict[str, Any]:
    above, below = three[:, 2] - three[:, 0], three[:, 0] - three[:, 1]
    return {
        "type": "data",
        "symmetric": False,
        "array": np.where(np.isfinite(above), np.maximum(above, 0.0), 0.0),
        "arrayminus": np.where(np.isfinite(below), np.maximum(below, 0.0), 0.0),
        "thickness": 1,
        "width": 3,
        "color": f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:7], 16)},0.55)",
    }


def _uniform(
    figure: go.Figure, view: View, rows: list[int], xs: FloatArray, ys: FloatArray, split: str, axis: Axis
) -> None:
    names = [view.baselines[row] or "" for row in rows]
    _points(
        figure,
        view,
        np.array(rows, dtype=np.int64),
        xs,
        ys,
        split,
        True,
        name="uniform",
        mode="markers+text",
        text=[escape(name) for name in names],
        textposition=text_positions(
            [(xs[row, 0], ys[row, 0]) for row in rows], xs[np.isfinite(xs[:, 0]), 0].tolist(), axis
        ),
        cliponaxis=False,
        marker={
            "color": [format_colour(name) for name in names],
            "size": 13,
            "symbol": [symbol("diamond", name) for name in names],
            "line": {"color": INK, "width": 1.2},
        },
    )


def _answer(figure: go.Figure, view: View, answer: Answer, x: str, y: str, xs: FloatArray, ys: FloatArray) -> None:
    """The best measured point within the budgets, and a line at each budget of this plane."""
    if answer.row is not None:
        figure.add_trace(
            go.Scatter(
                x=[xs[answer.row, 0]],
                y=[ys[answer.row, 0]],
                mode="markers",
                marker={"symbol": "cross-thin", "size": 20, "line": {"color": PREDICTED, "width": 3}},
                customdata=customdata(view, [answer.row]),
                hovertemplate="%{customdata[1]}<extra>best within the budgets</extra>",
                name="best within the budgets",
            )
        )
    for metric, line in ((x, figure.add_vline), (y, figure.add_hline)):
        if metric in answer.budgets:
            line(answer.budgets[metric], line={"color": PREDICTED, "dash": "dot", "width": 1.5})


def _telling(view: View, shown: NDArray[np.int64]) -> NDArray[np.int64]:
    """The points that the y axis must hold: all of few; of many the front, the uniform ones and the extremes."""
    if len(shown) <= _BARS:
        return shown
    first = [row for row in shown.tolist() if view.pareto[row] or view.baselines[row] is not None]
    quality = view.quality["validation"][shown, 0]
    ends = [int(shown[np.nanargmin(quality)]), int(shown[np.nanargmax(quality)])]
    return np.unique(np.array([*first, *ends], dtype=np.int64))
