"""What a point says under the pointer: metrics with units and intervals, and the histogram of its formats."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ...service.labels import count, number, share_text, unit
from ..view import FloatArray, View

_KNOWN: WeakKeyDictionary[View, dict[int, str]] = WeakKeyDictionary()


def hovers(view: View, rows: NDArray[np.int64]) -> list[str]:
    """The text of some points, column by column: thousands in some hundredths of a second.

    Args:
        view: the job.
        rows: of the points [points].

    Returns:
        Lines joined by ``<br>`` [points]; everything that users and models name is escaped.
    """
    columns = [[f"<b>{escape(view.label(row))}</b> ({escape(view.origins[row])})" for row in rows.tolist()]]
    for split, found in view.quality.items():
        name = "held-out" if split == "holdout" else split
        columns.append(_lines(f"{name} {escape(view.metric)}", found[rows], unit(view.metric)))
    columns.append(_lines(f"predicted {escape(view.metric)}", view.predicted[rows], unit(view.metric)))
    for name, found in view.prices.items():
        source = view.price_tables[name].source if name in view.price_tables else ""
        mark = f" ({escape(source)})" if source not in ("", "exact") else ""
        columns.append(_lines(escape(name), found[rows], unit(name), mark))
    columns.append(_histograms(view, rows))
    columns.append(["" if fits else "misses a constraint" for fits in view.feasible[rows].tolist()])
    return ["<br>".join(filter(None, lines)) for lines in zip(*columns, strict=True)]


def hover(view: View, row: int) -> str:
    """The text of one point."""
    return hovers(view, np.array([row], dtype=np.int64))[0]


def customdata(view: View, rows: Iterable[int]) -> NDArray[np.object_]:
    """``[id, text]`` of some points [points, 2]; a click reads the id. Texts of a view are made once."""
    wanted = np.fromiter(rows, dtype=np.int64)
    known = _KNOWN.setdefault(view, {})
    new = np.array([row for row in wanted.tolist() if row not in known], dtype=np.int64)
    if len(new):
        known.update(zip(new.tolist(), hovers(view, new), strict=True))
    table = np.empty((len(wanted), 2), dtype=object)
    table[:, 0] = [view.ids[row] for row in wanted.tolist()]
    table[:, 1] = [known[row] for row in wanted.tolist()]
    return table


def _lines(name: str, three: FloatArray, of_unit: str, mark: str = "") -> list[str]:
    """``name: value [low, high] unit``; empty where there is no value."""
    known = np.isfinite(three[:, 0])
    wide = known & np.isfinite(three[:, 1]) & (three[:, 2] > three[:, 1])
    end = (f" {of_unit}" if of_unit else "") + mark
    lines = []
    for (value, low, high), is_known, is_wide in zip(three.tolist(), known.tolist(), wide.tolist(), strict=True):
        width = f" [{number(low)}, {number(high)}]" if is_wide else ""
        lines.append(f"{name}: {number(value)}{width}{end}" if is_known else "")
    return lines


def _histograms(view: View, rows: NDArray[np.int64]) -> list[str]:
    """Formats with their layers, share and a bar of text; equal lines are made once."""
    names = [escape(name) for name in view.formats]
    known: dict[tuple[int, int, int], str] = {}

    def line(column: int, some: int, layers: int) -> str:
        key = (column, some, layers)
        if key not in known:
            bar = "█" * max(1, round(10 * some / layers))
            known[key] = f"{names[column]}: {count(some, 'layer')}, {share_text(some / layers)} {bar}"
        return known[key]

    return [
        "<br>".join(line(column, some, sum(layers)) for column, some in enumerate(layers) if some)
        for layers in view.histogram[rows].tolist()
    ]
