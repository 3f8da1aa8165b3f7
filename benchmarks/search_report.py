"""Tables (Markdown) and figures of what the parts of ``benchmarks/search.py`` wrote; measures nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from bitfront.service.palette import BEST, DOMINATED, GRID, INK, LIMIT, MEASURED, PREDICTED
from evolved_report import WIDTH, table, write_figure
from plotly.subplots import make_subplots

_ACROSS = 4  # panels in a row
FLOOR = 1e-3  # regret that is drawn as none
SHOWN = {
    "loop": BEST,
    "exact_front": PREDICTED,
    "level_switch": MEASURED,
    "nsga2": "#dd7a2e",
    "tpe": "#56a5dc",
    "gp": "#1f5fa8",
    "random": DOMINATED,
}
COLUMNS = ("uniform", "greedy weight_mse", "exact hessian_trace", "exact measured_kl")
SEARCHED = (
    "evolution 16",
    "loop 16",
    "evolution 48",
    "loop 48",
    "evolution 128",
    "loop 128",
)
ON_VALIDATION = "loop 128, the best on validation alone"


def report(folder: Path, figures: Path) -> None:
    """Write ``FOLDER/search.md`` and the figures of every part that was run."""
    figures.mkdir(parents=True, exist_ok=True)
    parts = []
    for name, tables, draw in (
        ("exhaustive", exhaustive_table, exhaustive_figure),
        ("nets", nets_tables, nets_figure),
        ("overfitting", overfitting_table, overfitting_figure),
        ("flip", flip_table, None),
        ("seconds", seconds_table, None),
    ):
        path = folder / f"search_{name}.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text())
        parts.append("\n".join([f"### {name}", "", *tables(found), ""]))
        if draw is not None:
            write_figure(draw(found), folder / f"search_{name}")
            picture = folder / f"search_{name}.png"
            if picture.exists():
                picture.replace(figures / picture.name)
    (folder / "search.md").write_text("\n".join(parts), encoding="utf-8")
    print("\n".join(parts))


def curves(found: dict[str, Any], problem: str, method: str, what: str) -> np.ndarray:
    """One row for each seed: [seeds, evaluations]."""
    rows = [row[what] for key, row in found.items() if key.startswith(f"{problem}/{method}/")]
    return np.array(rows)


def exhaustive_table(found: dict[str, Any]) -> list[str]:
    """Regret within the budget and hypervolume without one, after 16, 32 and all evaluations."""
    methods = list(dict.fromkeys(key.split("/")[1] for key in found if "/" in key))
    rows = []
    for method in methods:
        regret, volume = (
            curves(found, *each) for each in (("budget", method, "regret"), ("front", method, "hypervolume"))
        )
        cells = [method]
        for at in (16, 32, 64):
            cells += [_spread(100 * regret[:, at - 1], "%")] if len(regret) else [""]
        hit = [int(np.argmax(row <= 1e-9)) + 1 if (row <= 1e-9).any() else None for row in regret]
        reached = [each for each in hit if each is not None]
        cells.append(f"{len(reached)} of {len(hit)}" + (f", after {np.median(reached):.0f}" if reached else ""))
        for at in (16, 32, 64):
            cells += [_spread(100 * volume[:, at - 1], "%")] if len(volume) else [""]
        rows.append(cells)
    truth = found["truth"]
    heads = ["method", "regret 16", "32", "64", "optimum found", "hypervolume 16", "32", "64"]
    lines = table(heads, rows)
    exact = ", ".join(f"{proxy} {value / truth['optimum'] - 1:.0%}" for proxy, value in truth["exact"].items())
    lines.append("")
    lines.append(
        f"{truth['configurations']} configurations, {truth['feasible']} within {truth['avg_bits']} bits; optimum "
        f"{truth['optimum']:.5f}; above it: uniform {truth['uniform'] / truth['optimum'] - 1:.0%}, exact allocation on "
        f"{exact}"
    )
    return lines


def _spread(values: np.ndarray, unit: str) -> str:
    low, middle, high = np.percentile(values, [10, 50, 90])
    spec = ".1f" if abs(middle) < 100 else ".0f"
    return f"{middle:{spec}} [{low:{spec}}, {high:{spec}}] {unit}"


def exhaustive_figure(found: dict[str, Any]) -> go.Figure:
    """Median over the seeds with a band from the 10th to the 90th percentile."""
    titles = (
        f"regret within {found['truth']['avg_bits']:g} bits (0 drawn at {FLOOR:.1%})",
        "share of the hypervolume of the true front",
    )
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles, horizontal_spacing=0.08)
    for method, colour in SHOWN.items():
        for column, (problem, what) in enumerate((("budget", "regret"), ("front", "hypervolume")), 1):
            rows = curves(found, problem, method, what)
            if not len(rows):
                continue
            rows = np.maximum(rows, FLOOR) if what == "regret" else rows
            x = np.arange(1, rows.shape[1] + 1)
            low, middle, high = np.percentile(rows, [10, 50, 90], axis=0)
            band = {
                "x": [*x, *x[::-1]],
                "y": [*high, *low[::-1]],
                "fill": "toself",
                "opacity": 0.15,
                "hoverinfo": "skip",
            }
            figure.add_scatter(
                **band, mode="none", fillcolor=colour, showlegend=False, row=1, col=column, legendgroup=method
            )
            figure.add_scatter(
                x=x, y=middle, mode="lines", line={"color": colour, "width": 3 if method == "loop" else 1.8},
                name=method, legendgroup=method, showlegend=column == 1, row=1, col=column,
            )  # fmt: skip
    figure.update_yaxes(type="log", tickvals=[0.001, 0.01, 0.1, 1, 10, 100], tickformat=".1~%", row=1, col=1)
    figure.update_yaxes(tickformat=".0%", range=[0.75, 1.005], row=1, col=2)
    figure.update_xaxes(title="evaluations, 3 uniform ones first")
    return _styled(figure, 460)


def nets_tables(found: dict[str, Any]) -> list[str]:
    """Loss on the test samples by method, and the paired differences of the largest search."""
    lines = []
    for net, formats in dict.fromkeys(tuple(key.split("/")[:2]) for key in found):
        cells = {key.split("/", 2)[2]: row for key, row in found.items() if key.startswith(f"{net}/{formats}/")}
        widths = sorted({key.split("/")[0] for key in cells}, key=float)
        first = next(iter(cells.values()))
        lines += ["", f"**{net}**, {formats}, {first['metric']}, {first['test']['samples']} test samples", ""]
        rows = []
        for method in (*COLUMNS, *SEARCHED):
            values = [cells.get(f"{width}/{method}") for width in widths]
            if any(values):
                rows.append([method, *(f"{v['test']['value']:.4g}" if v else "" for v in values)])
        alone = [cells.get(f"{width}/loop 128", {}).get("best on validation") for width in widths]
        if any(alone):
            rows.append([ON_VALIDATION, *(f"{each['test']['value']:.4g}" if each else "" for each in alone)])
        for method in ("evolution 48", "loop 48", "evolution 128", "loop 128"):
            for against in ("uniform", "exact measured_kl"):
                values = [cells.get(f"{width}/{method}") for width in widths]
                if any(values):
                    rows.append([f"{method} / {against}", *(_against(v, against) if v else "" for v in values)])
        lines += table(["", *(f"{width} bits" for width in widths)], rows)
    return lines


def _against(row: dict[str, Any], reference: str) -> str:
    found = row[f"against {reference}"]
    verdict = "" if found["low"] <= 0 <= found["high"] else (" better" if found["high"] < 0 else " worse")
    return f"{found['ratio']:.2f}x{verdict or ' tie'}"


def nets_figure(found: dict[str, Any]) -> go.Figure:
    """Loss on the test samples against evaluations, a panel for each network and budget, four formats."""
    panels = sorted(
        {tuple(key.split("/")[:3]) for key in found if "x4/" in key}, key=lambda each: (each[0], float(each[2]))
    )
    titles = [f"{net}, {width} bits" for net, _, width in panels]
    rows = -(-len(panels) // _ACROSS)
    figure = make_subplots(
        rows=rows, cols=_ACROSS, subplot_titles=titles, vertical_spacing=0.3 / rows, horizontal_spacing=0.05
    )
    seen: set[str] = set()
    for index, (net, formats, width) in enumerate(panels):
        place = {"row": index // _ACROSS + 1, "col": index % _ACROSS + 1}
        cells = {
            key.rsplit("/", 1)[1]: row for key, row in found.items() if key.startswith(f"{net}/{formats}/{width}/")
        }
        for name, colour, start in (("loop", BEST, "exact measured_kl"), ("evolution", MEASURED, "uniform")):
            points = [(0, cells[start])] if start in cells else []
            points += sorted((int(k.split()[1]), row) for k, row in cells.items() if k.startswith(f"{name} "))
            points.sort(key=lambda each: each[0])
            high = [row["test"]["high"] - row["test"]["value"] for _, row in points]
            low = [row["test"]["value"] - row["test"]["low"] for _, row in points]
            figure.add_scatter(
                x=[n for n, _ in points], y=[row["test"]["value"] for _, row in points], mode="lines+markers",
                error_y={"type": "data", "array": high, "arrayminus": low, "thickness": 1, "width": 2},
                line={"color": colour}, name=f"{name} (0: {start})", legendgroup=name,
                showlegend=name not in seen, **place,
            )  # fmt: skip
            seen.add(name)
        for name, colour in (("uniform", INK), ("exact hessian_trace", PREDICTED)):
            if name in cells:
                y = cells[name]["test"]["value"]
                figure.add_scatter(
                    x=[0, 128], y=[y, y], mode="lines", line={"color": colour, "dash": "dot"}, name=name,
                    legendgroup=name, showlegend=name not in seen, **place,
                )  # fmt: skip
                seen.add(name)
    figure.update_yaxes(type="log", nticks=5, tickformat=".2g", tickfont_size=10)
    figure.update_xaxes(tickvals=[0, 16, 48, 128], tickfont_size=10)
    return _styled(figure, 140 + 240 * rows)


def overfitting_table(found: dict[str, Any]) -> list[str]:
    """The last best of every search: validation, held-out, and both against uniform."""
    rows = []
    for name in dict.fromkeys(key.rsplit("/", 1)[0] for key in found):
        runs = [row for key, row in found.items() if key.startswith(f"{name}/")]
        _net, validation, method = name.split("/")
        last = [(row["steps"][-1], row["uniform"]) for row in runs]
        rows.append(
            [
                f"{method}, {validation} samples",
                str(len(runs)),
                f"{np.mean([s['validation'] / u['validation'] for s, u in last]):.3f}x",
                f"{np.mean([s['test'] / u['test'] for s, u in last]):.3f}x",
                f"{np.mean([row['steps'][-1]['test'] / min(s['test'] for s in row['steps']) - 1 for row in runs]):.1%}",
                f"{np.mean([row['finalist']['test'] / row['uniform']['test'] for row in runs]):.3f}x",
            ]
        )
    heads = [
        "search",
        "seeds",
        "validation / uniform",
        "test / uniform",
        "test above its best on the way",
        "test / uniform, finalist chosen with more data",
    ]
    return table(heads, rows)


def overfitting_figure(found: dict[str, Any]) -> go.Figure:
    """Validation and held-out loss of the best so far, relative to uniform, against evaluations."""
    panels = list(dict.fromkeys(key.rsplit("/", 1)[0] for key in found))
    titles = ["{2}, {1} validation samples".format(*panel.split("/")) for panel in panels]
    figure = make_subplots(rows=1, cols=len(panels), subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.03)
    for column, panel in enumerate(panels, 1):
        runs = [row for key, row in found.items() if key.startswith(f"{panel}/")]
        for index, row in enumerate(runs):
            for what, label, colour in (("validation", "validation", PREDICTED), ("test", "test", MEASURED)):
                figure.add_scatter(
                    x=[s["evaluations"] for s in row["steps"]] + [64],
                    y=[s[what] / row["uniform"][what] for s in row["steps"]]
                    + [row["steps"][-1][what] / row["uniform"][what]],
                    mode="lines", line={"color": colour, "shape": "hv", "width": 1.6}, name=label, legendgroup=label,
                    showlegend=column == 1 and index == 0, row=1, col=column,
                )  # fmt: skip
        figure.add_hline(y=1.0, line={"color": LIMIT, "dash": "dot", "width": 1}, row=1, col=column)
    figure.update_xaxes(title="evaluations")
    figure.update_yaxes(type="log", range=[-1.7, 1.1], tickvals=[0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10])
    figure.update_yaxes(title="loss / loss of uniform w4", row=1, col=1)
    return _styled(figure, 400)


def flip_table(found: dict[str, Any]) -> list[str]:
    """The answer for every device and batch, and its latency on all of them."""
    heads = ["best for", "source", "budget ms", "formats", "loss", *(f"ms on {where}" for where in found)]
    rows = []
    for where, row in found.items():
        formats = ", ".join(f"{count} {name}" for name, count in row["formats"].items() if count)
        cells = [f"{ms:.4g}" + ("" if row["fits"][other] else " (over)") for other, ms in row["latency_ms"].items()]
        rows.append([where, row["source"], f"{row['budget_ms']:.4g}", formats, f"{row['test']['value']:.2g}", *cells])
    lines = table(heads, rows)
    lines += [
        "",
        *table(
            ["sites that differ", *found],
            [[w, *(str(n) for n in r["differs_from"].values())] for w, r in found.items()],
        ),
    ]
    return lines


def seconds_table(found: dict[str, Any]) -> list[str]:
    """Seconds by stage."""
    stages = list(dict.fromkeys(name for row in found.values() for name in row["wall"]))
    heads = ["", "sites", "formats", "evaluations", "total s", "evaluating s", *stages]
    rows = [
        [
            key.split("/")[1], str(row["sites"]), str(row["formats"]), str(row["evaluations"]), f"{row['total']:.1f}",
            f"{row['evaluating']:.1f}", *(f"{row['wall'][name]:.1f}" if name in row["wall"] else "" for name in stages),
        ]
        for key, row in found.items()
    ]  # fmt: skip
    return table(heads, rows)


def _styled(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(
        width=WIDTH, height=height, template="plotly_white", font={"color": INK, "size": 12},
        margin={"l": 60, "r": 20, "t": 60, "b": 60}, legend={"orientation": "h", "y": -0.18 if height < 600 else -0.06},
        paper_bgcolor="white",
    )  # fmt: skip
    figure.update_annotations(font_size=12)
    figure.update_xaxes(gridcolor=GRID)
    figure.update_yaxes(gridcolor=GRID)
    return figure
