"""Tables (Markdown) and the figure of what ``dense``, ``lines`` and ``speed`` of ``benchmarks/latency.py`` wrote."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from bitfront.service.palette import GRID, INK, LIMIT, PREDICTED
from evolved_report import WIDTH, table, write_figure
from latency_dense import METHODS
from plotly.subplots import make_subplots

TARGETS = {"mape": 0.045, "within": 0.9, "coverage": (0.88, 0.92)}
_ACROSS = 3
_PANELS = (
    ("nvidia-h200-sxm", "bf16"),
    ("nvidia-h200-sxm", "fp8"),
    ("nvidia-b200", "nvfp4"),
    ("nvidia-h100-sxm", "fp8_block"),
    ("nvidia-l40s", "bf16"),
    ("nvidia-a100-sxm-80gb", "int4_wo"),
)


def report(arguments: argparse.Namespace) -> None:
    """Write ``OUT/latency.md`` and the figure of the parts that were run."""
    parts: list[str] = []
    for part in ("dense", "lines"):
        path = arguments.out / f"latency_{part}.json"
        if not path.exists():
            continue
        found = averaged(json.loads(path.read_text()))
        parts += [f"### {part}", "", *error_table(found), "", *means_table(found), "", *missed(found), ""]
        if part == "dense":
            figure(found, arguments.out, arguments.figures)
    path = arguments.out / "latency_speed.json"
    if path.exists():
        parts += ["### speed", "", *speed_table(json.loads(path.read_text())), ""]
    (arguments.out / "latency.md").write_text("\n".join(parts), encoding="utf-8")
    print("\n".join(parts))


def averaged(found: dict[str, Any]) -> dict[str, Any]:
    """``device/format`` -> the mean over its splits; points of all splits."""
    by_table: dict[str, list[dict[str, Any]]] = {}
    for key, entry in found.items():
        by_table.setdefault(key.rsplit("/", 1)[0], []).append(entry)
    return {key: _mean(entries) for key, entries in by_table.items()}


def _mean(entries: list[dict[str, Any]]) -> dict[str, Any]:
    mean: dict[str, Any] = {"unseen": sum(entry["unseen"] for entry in entries), "points": {}}
    for method in METHODS:
        mean[method] = {name: float(np.mean([entry[method][name] for entry in entries])) for name in entries[0][method]}
    for name in ("ms", "predicted"):
        mean["points"][name] = [value for entry in entries for value in entry["points"][name]]
    return mean


def error_table(found: dict[str, Any]) -> list[str]:
    """MAPE / share within 10 % / Spearman of every method, coverage of ours."""
    heads = ["device", "format", "rows", *METHODS, "coverage"]
    rows = []
    for key, entry in sorted(found.items()):
        device, format_ = key.split("/")
        cells = [_cell(entry[method]) for method in METHODS]
        rows.append([device, format_, f"{entry['unseen']:,}", *cells, f"{100 * entry['ours']['coverage']:.1f} %"])
    return table(heads, rows)


def _cell(entry: dict[str, float]) -> str:
    return f"{100 * entry['mape']:.1f} / {100 * entry['within']:.0f} / {entry['spearman']:.3f}"


def means_table(found: dict[str, Any]) -> list[str]:
    """The mean over all devices and formats."""
    rows = []
    for method in METHODS:
        entries = [entry[method] for entry in found.values()]

        def mean(name: str, entries: list[dict[str, float]] = entries) -> float:
            return float(np.mean([entry[name] for entry in entries]))

        covered = f"{100 * mean('coverage'):.1f} %" if "coverage" in entries[0] else ""
        met = sum(entry["mape"] <= TARGETS["mape"] and entry["within"] >= TARGETS["within"] for entry in entries)
        cells = [f"{100 * mean('mape'):.2f} %", f"{100 * mean('within'):.1f} %", f"{mean('spearman'):.4f}", covered]
        rows.append([method, *cells, f"{met} of {len(entries)}"])
    return table(["mean over devices and formats", "MAPE", "within 10 %", "Spearman", "coverage", "targets met"], rows)


def missed(found: dict[str, Any]) -> list[str]:
    """Which targets are missed where, with how far the order of the surface moves it from its own rows."""
    checks: dict[str, Callable[[dict[str, float]], bool]] = {
        "mape": lambda entry: entry["mape"] <= TARGETS["mape"],
        "within": lambda entry: entry["within"] >= TARGETS["within"],
        "coverage": lambda entry: TARGETS["coverage"][0] <= entry["coverage"] <= TARGETS["coverage"][1],
    }
    lines = []
    for key, entry in sorted(found.items()):
        failed = [name for name, check in checks.items() if not check(entry["ours"])]
        if failed:
            free = [name for name, check in checks.items() if not check(entry["ours, not monotone"])]
            lines.append(
                f"- {key}: misses {', '.join(failed)}; not monotone: {', '.join(free) or 'none'}; the surface is "
                f"{100 * entry['ours']['moved']:.1f} % off the rows that it was fitted on for the sake of its order"
            )
    return lines


def speed_table(found: dict[str, Any]) -> list[str]:
    """Seconds."""
    rows = [
        [
            device,
            str(len(entry["formats"])),
            f"{1e3 * entry['predict_seconds']:.0f} ms",
            f"{1e3 * entry['predict_slowest']:.0f} ms",
            f"{entry['load_seconds']:.2f} s",
            f"{entry['fit_seconds']:.0f} s",
            f"{entry['fit_cpu_seconds']:.0f} s",
        ]
        for device, entry in found.items()
    ]
    return table(
        ["device", "formats", "10,000 prices", "slowest of 15", "load", "first fit", "of it processor time"], rows
    )


def figure(found: dict[str, Any], folder: Path, figures: Path) -> None:
    """Predicted against measured, a panel for each of ``_PANELS`` that was run."""
    shown = [f"{device}/{format_}" for device, format_ in _PANELS if f"{device}/{format_}" in found]
    if not shown:
        return
    down = -(-len(shown) // _ACROSS)
    titles = [f"{key.replace('/', ' ')}: {100 * found[key]['ours']['mape']:.1f} %" for key in shown]
    drawing = make_subplots(down, _ACROSS, subplot_titles=titles, horizontal_spacing=0.06, vertical_spacing=0.14)
    for index, key in enumerate(shown):
        row, column = divmod(index, _ACROSS)
        points = found[key]["points"]
        ends = [0.8 * min(points["ms"]), 1.25 * max(points["ms"])]
        at = {"row": row + 1, "col": column + 1}
        for factor in (0.9, 1.1):
            band = go.Scatter(x=ends, y=[factor * end for end in ends], mode="lines", line={"color": LIMIT, "width": 1})
            drawing.add_trace(band, **at)
        dots = {"color": PREDICTED, "size": 3, "opacity": 0.5}
        drawing.add_trace(go.Scatter(x=points["ms"], y=points["predicted"], mode="markers", marker=dots), **at)
    drawing.update_xaxes(type="log", title="measured ms", gridcolor=GRID, dtick=1)
    drawing.update_yaxes(type="log", title="predicted ms", gridcolor=GRID, dtick=1)
    drawing.update_layout(
        width=WIDTH,
        height=340 * down + 40,
        showlegend=False,
        plot_bgcolor="white",
        font={"color": INK, "size": 12},
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
    )
    figures.mkdir(parents=True, exist_ok=True)
    write_figure(drawing, folder / "latency_dense")
    picture = folder / "latency_dense.png"
    if picture.exists():
        picture.replace(figures / picture.name)
