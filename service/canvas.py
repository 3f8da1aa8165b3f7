"""What the figures are drawn on: the empty figure, axes that choose their scale, error bars.

Figures have no title (the page says what they are), a transparent background, and a fixed height but no width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from .document_parts import Interval
from .palette import DOMINATED, GRID, INK

LOG_DECADES = 1.5
LOG_TICKS: dict[str, Any] = {
    "dtick": 1,
    "exponentformat": "power",
    "tickfont": {"size": 11},
    "minor": {"showgrid": False},
}
"""Plotly properties of a logarithmic axis: a tick each decade."""


def base_figure(height: int) -> go.Figure:
    """An empty figure in the style of all: no title, no width, transparent background, legend below."""
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


class Axis:
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
            update(**LOG_TICKS)


def error_bars(intervals: Sequence[Interval], colour: str) -> dict[str, Any]:
    """Plotly error bars of some intervals, in a translucent ``#rrggbb`` colour."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [interval.above for interval in intervals],
        "arrayminus": [interval.below for interval in intervals],
        "thickness": 1,
        "width": 3,
        "color": f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:7], 16)},0.55)",
    }


def add_note(figure: go.Figure, text: str) -> None:
    """Write a sentence into the middle of a figure that has nothing to show."""
    figure.add_annotation(text=text, xref="paper", yref="paper", x=0.5, y=0.5, showarrow=False, font={"size": 16})
