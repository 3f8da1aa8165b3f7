"""Layer by layer: the formats of weights and activations as squares, with score and price of each layer beside them."""

from __future__ import annotations

from html import escape

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ...errors import UnknownFormat
from ...formats import Format
from ...service.canvas import base_figure
from ...service.labels import label, number, unit
from ...service.palette import BITS_COLOURS, INK, PREDICTED, UNKNOWN
from ..view import View

ROW_PX, HEAD_PX = 19, 110
_LONGEST = 34  # characters of a layer's name


def layer_map(view: View, row: int, proxy: str | None, metric: str | None, selected: int | None = None) -> go.Figure:
    """Squares: what weights and activations of each layer are stored in; bars: its score and its price.

    Args:
        view: the job.
        row: of the point.
        proxy: whose scores are drawn; ``None``: none.
        metric: the price that is drawn; ``None``: none.
        selected: index of a layer to frame.

    Returns:
        The figure; ``customdata`` of a square is [point id, index of the layer].
    """
    panels = [*(["score"] if proxy else []), *(["price"] if metric else [])]
    widths = [0.34, *([0.66 / len(panels)] * len(panels))] if panels else [1.0]
    figure = make_subplots(
        rows=1, cols=1 + len(panels), shared_yaxes=True, column_widths=widths, horizontal_spacing=0.03
    )
    figure.update_layout(base_figure(HEAD_PX + ROW_PX * len(view.sites)).layout)
    columns = view.choices[row].tolist()
    names = [view.formats[column] for column in columns]
    _squares(figure, view, row, names)
    texts = [f"{escape(site.name)}: {escape(name)}" for site, name in zip(view.sites, names, strict=True)]
    where = list(range(len(view.sites)))
    for number_of, panel in enumerate(panels, 2):
        if panel == "score" and proxy is not None:
            values, title, colour = view.sensitivities[proxy][where, columns], f"predicted loss<br>({proxy})", PREDICTED
            tell = [f"{text}<br>score {number(v)}" for text, v in zip(texts, values.tolist(), strict=True)]
        elif metric is not None:
            values, title = view.price_tables[metric].values[where, columns], f"{label(metric)}<br>of the layer"
            colour = BITS_COLOURS[16]
            tell = [f"{text}<br>{number(v)} {unit(metric)}" for text, v in zip(texts, values.tolist(), strict=True)]
        figure.add_trace(
            go.Bar(
                x=values,
                y=where,
                orientation="h",
                marker={"color": colour},
                customdata=[[view.ids[row], index] for index in where],
                hovertext=tell,
                hoverinfo="text",
                showlegend=False,
            ),
            row=1,
            col=number_of,
        )
        positive = values[np.isfinite(values) & (values > 0)]
        log = panel == "score" and len(positive) == len(values) > 1 and positive.max() / positive.min() > 300
        figure.update_xaxes(
            title=title, type="log" if log else "linear", nticks=4, exponentformat="power", row=1, col=number_of
        )
    figure.update_xaxes(
        tickvals=[0, 1], ticktext=["weights", "activations"], range=[-0.6, 1.6], side="top", tickangle=0, row=1, col=1
    )
    figure.update_yaxes(
        tickvals=where, ticktext=[_short(site.name) for site in view.sites], row=1, col=1, showgrid=False
    )
    figure.update_yaxes(range=[len(view.sites) - 0.4, -0.6], ticks="")
    if selected is not None:
        figure.add_hrect(selected - 0.5, selected + 0.5, line={"color": INK, "width": 1.2}, layer="below")
    figure.update_layout(bargap=0.35, legend={"y": -60 / figure.layout.height, "title": "stored in"})
    return figure


def parts(format_name: str) -> tuple[str, str]:
    """What weights and activations are stored in: names of tensors, such as ``4 bit`` and ``16 bit``."""
    try:
        parsed = Format.parse(format_name)
    except UnknownFormat:
        return format_name, format_name
    return _stored(parsed.weight_bits), _stored(parsed.activation_bits)


def _stored(bits: int | None) -> str:
    return "float" if bits is None else f"{bits} bit"


def _squares(figure: go.Figure, view: View, row: int, names: list[str]) -> None:
    """One trace for each width, so that the legend names it."""
    cells: dict[str, list[tuple[int, int]]] = {}
    for index, name in enumerate(names):
        for column, stored in enumerate(parts(name)):
            cells.setdefault(stored, []).append((column, index))
    for stored in sorted(cells, key=lambda text: (text == "float", int(text.split()[0]) if text[0].isdigit() else 99)):
        colour = BITS_COLOURS[32] if stored == "float" else UNKNOWN
        if stored[0].isdigit():
            colour = BITS_COLOURS.get(int(stored.split()[0]), UNKNOWN)
        figure.add_trace(
            go.Scatter(
                x=[column for column, _ in cells[stored]],
                y=[index for _, index in cells[stored]],
                mode="markers",
                marker={"symbol": "square", "size": 13, "color": colour, "line": {"color": INK, "width": 0.5}},
                name=stored,
                customdata=[[view.ids[row], index] for _, index in cells[stored]],
                hovertext=[
                    f"<b>{escape(view.sites[index].name)}</b>: {escape(names[index])}<br>"
                    f"{escape(view.sites[index].kind)}, {view.sites[index].elements:,} weights"
                    for _, index in cells[stored]
                ],
                hoverinfo="text",
            ),
            row=1,
            col=1,
        )


def _short(name: str) -> str:
    """Elided in the middle, where module paths are alike."""
    text = name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2 - 1]}…{name[-_LONGEST // 2 :]}"
    return escape(text)
