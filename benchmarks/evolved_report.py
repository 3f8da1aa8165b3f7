"""The report of ``benchmarks/evolved.py``: Markdown tables and figures from its JSON.

``python benchmarks/evolved_report.py out/evolved.json`` writes it again without measuring anything. Figures are HTML,
and PNG where a Chromium is found.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from bitfront.service.palette import BEST, DOMINATED, GRID, INK, LIMIT, MEASURED, PREDICTED
from plotly.subplots import make_subplots

OURS, BASELINES = ("evolved", "emq"), ("size", "bops", "bparams")
WIDTH = 1100
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_TITLES = {"weights": "weight-only formats", "activations": "8-bit activations"}


def write_report(found: dict[str, Any], stem: Path) -> str:
    """Write ``STEM.md`` and the figures ``STEM_ranks``, ``STEM_weights``, ``STEM_activations``; returns the text."""
    parts = [evolutions_text(found)]
    if found["held_out"]:
        figures = {"ranks": ranks_figure(found)}
        measured = dict.fromkeys(variant for table in found["allocation"].values() for variant in table)
        figures |= {variant: quality_figure(found, variant) for variant in measured}
        for name, figure in figures.items():
            write_figure(figure, stem.with_name(f"{stem.name}_{name}"))
        parts += [rank_table(name, rows, found) for name, rows in found["held_out"].items()]
        parts += [
            quality_table(name, variant, picked, found)
            for name, table in found["allocation"].items()
            for variant, picked in table.items()
        ]
    text = "\n".join(parts)
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    return text


def evolutions_text(found: dict[str, Any]) -> str:
    """What was found where, and at what rate."""
    head = [
        "left out",
        "formula",
        "nodes",
        "fitness",
        "tried",
        "a minute",
        "best hand-made",
        "ahead of it by",
        "best of its cost",
        "ahead of it by",
    ]
    rows = []
    for name, each in found["evolutions"].items():
        where = each["unseen"] or each["seen"]
        duels = [where["comparisons"].get(each[kind]) for kind in ("rival", "peer")]
        rows.append(
            [
                "none" if name == "all" else name,
                f"`{'' if each['orientation'] > 0 else '-'}{each['expression']}`",
                str(each["size"]),
                f"{each['fitness']:.3f}",
                f"{each['tried']:,}",
                f"{each['per_minute']:,.0f}",
                each["rival"] or "",
                ahead(duels[0]),
                each["peer"] or "",
                ahead(duels[1]),
            ]
        )
    return "\n".join(["### The formulas", "", *table(head, rows), ""])


def ahead(duel: dict[str, Any] | None) -> str:
    """The paired difference on the network that was left out (where none was: on the other halves)."""
    return f"{interval(duel['difference'], sign=True)}, p = {duel['chance']:.2g}" if duel else ""


def rank_table(name: str, rows: dict[str, dict[str, Any]], found: dict[str, Any]) -> str:
    """The candidates on a network that was left out, the best at fixed size first."""
    network = found["networks"][name]
    heads = [
        "proxy", "ρ fixed size", "τ fixed size", "ρ top 20 %", "ρ top 50 %", "ρ 100 %", "τ 100 %",
        "regret 1 / 5 / 20", "evolved ahead by", "s",
    ]  # fmt: skip
    lines = []
    for proxy, row in ordered(rows):
        lines.append(
            [
                f"**{proxy}**" if proxy in OURS else proxy,
                interval(row["spearman_fixed"]),
                interval(row["kendall_fixed"]),
                number(row["top_20%"]),
                number(row["top_50%"]),
                interval(row["spearman"]),
                number(row["kendall"]),
                " / ".join("" if row[f"regret_{k}"] is None else f"{row[f'regret_{k}']:.2f}" for k in (1, 5, 20)),
                interval(row["behind"], sign=True),
                "" if row["seconds"] is None else f"{row['seconds']:.2f}",
            ]
        )
    title = f"### {name}, never seen by the search: {network['configurations']} configurations, {network['metric']}"
    return "\n".join([title, "", *table(heads, lines), ""])


def quality_table(name: str, variant: str, picked: dict[str, dict[str, Any]], found: dict[str, Any]) -> str:
    """Measured quality of what was picked at every budget, the best in the geometric mean first."""
    network = found["networks"][name]
    proxies = dict.fromkeys(proxy for rows in picked.values() for proxy in rows if not proxy.startswith("uniform"))
    uniform = [
        next((row for proxy, row in rows.items() if proxy.startswith("uniform")), None) for rows in picked.values()
    ]

    def qualities(proxy: str) -> list[float]:
        measured = [picked[budget][proxy]["quality"] for budget in picked]
        return [float("inf") if each is None else each["value"] for each in measured]

    best = [min(column) for column in zip(*(qualities(proxy) for proxy in proxies), strict=True)]
    lines = []
    for proxy in sorted(proxies, key=lambda each: mean_excess(qualities(each), best, network["float_quality"])):
        cells = [shown(value, value == least) for value, least in zip(qualities(proxy), best, strict=True)]
        lines.append([f"**{proxy}**" if proxy in OURS else proxy, *cells])
    lines.append(["uniform", *("" if row is None else shown(row["quality"]["value"]) for row in uniform)])
    duels = found["duels"][name][variant]
    for rival in dict.fromkeys(each for row in duels.values() for each in row):
        cells = [interval(duels[budget].get(rival), sign=True, small=True) for budget in picked]
        lines.append([f"evolved minus {rival}", *cells])
    title = f"### {name}: measured {network['metric']} of what the allocator picks, {_TITLES[variant]}"
    heads = ["proxy", *(f"{budget} bits" for budget in picked)]
    return "\n".join([title, "", *table(heads, lines), ""])


def mean_excess(values: list[float], best: list[float], float_quality: float) -> float:
    """How far above the best of each budget, in the mean over budgets, relative to the loss of the best."""
    gaps = [(value - least) / max(least - float_quality, 1e-12) for value, least in zip(values, best, strict=True)]
    return sum(gaps) / len(gaps)


def ranks_figure(found: dict[str, Any]) -> go.Figure:
    """Spearman's rho at fixed size of every candidate on every network that was left out."""
    networks = list(found["held_out"])
    means: dict[str, list[float]] = {}
    for rows in found["held_out"].values():
        for proxy, row in rows.items():
            means.setdefault(proxy, []).append(row["spearman_fixed"]["value"])
    names = sorted(means, key=lambda proxy: sum(means[proxy]) / len(networks))
    figure = make_subplots(1, len(networks), subplot_titles=networks, shared_yaxes=True, horizontal_spacing=0.02)
    for column, network in enumerate(networks, 1):
        rows = found["held_out"][network]
        for kind, colour in (("evolved", BEST), ("emq", PREDICTED), ("baseline", DOMINATED), ("hand-made", MEASURED)):
            shown_ = [name for name in names if name in rows and kind_of(name) == kind]
            values = [rows[name]["spearman_fixed"] for name in shown_]
            figure.add_trace(
                go.Scatter(
                    x=[each["value"] for each in values],
                    y=shown_,
                    error_x={
                        "type": "data",
                        "symmetric": False,
                        "array": [each["high"] - each["value"] for each in values],
                        "arrayminus": [each["value"] - each["low"] for each in values],
                        "thickness": 1.5,
                        "width": 0,
                    },
                    mode="markers",
                    marker={"color": colour, "size": 10 if kind in OURS else 7},
                    name=kind,
                    showlegend=column == 1,
                ),
                1,
                column,
            )
        figure.add_vline(x=0, line={"color": INK, "dash": "dot", "width": 1}, row=1, col=column)
        figure.update_xaxes(title="ρ at fixed size", row=1, col=column)
    figure.update_xaxes(matches="x")
    figure.update_yaxes(categoryorder="array", categoryarray=names, tickmode="array", tickvals=names)
    return styled(figure, 150 + 19 * len(names))


def quality_figure(found: dict[str, Any], variant: str) -> go.Figure:
    """Measured quality against average bits: evolved, EMQ, the rival, uniform, and all others in grey."""
    networks = [name for name, variants in found["allocation"].items() if variant in variants]
    columns = 2 if len(networks) > 1 else 1
    figure = make_subplots(
        -(-len(networks) // columns), columns, subplot_titles=networks, horizontal_spacing=0.09, vertical_spacing=0.13
    )
    told: set[str] = set()
    for index, network in enumerate(networks):
        place = {"row": index // columns + 1, "col": index % columns + 1}
        picked = found["allocation"][network][variant]
        rival, peer = (found["evolutions"][network][kind] for kind in ("rival", "peer"))
        names = dict.fromkeys(name for rows in picked.values() for name in rows if not name.startswith("uniform"))
        highlighted = [name for name in (rival, "emq", peer, "evolved") if name in names]
        for name in [*(each for each in names if each not in highlighted), *highlighted]:
            colour = {"evolved": BEST, "emq": PREDICTED, peer: MEASURED, rival: INK}.get(name, GRID)
            label = {
                "evolved": "evolved",
                "emq": "EMQ",
                peer: "best of its cost on the other networks",
                rival: "best on the other networks",
            }.get(name, "other hand-made")
            points = [(float(budget), rows[name]["quality"]) for budget, rows in picked.items() if name in rows]
            points = [(budget, quality["value"]) for budget, quality in points if quality is not None]
            figure.add_trace(
                go.Scatter(
                    x=[budget for budget, _ in points],
                    y=[value for _, value in points],
                    mode="lines+markers",
                    line={"color": colour, "width": 3 if name in highlighted else 1.5},
                    marker={"size": 8 if name in highlighted else 4},
                    name=label,
                    legendgroup=label,
                    showlegend=label not in told,
                    hovertext=name,
                ),
                **place,
            )
            told.add(label)
        plain = [
            (float(budget), row["quality"]["value"])
            for budget, rows in picked.items()
            for name, row in rows.items()
            if name.startswith("uniform") and row["quality"] is not None
        ]
        figure.add_trace(
            go.Scatter(
                x=[budget for budget, _ in plain],
                y=[value for _, value in plain],
                mode="markers",
                marker={"symbol": "diamond", "size": 11, "color": LIMIT},
                name="uniform",
                legendgroup="uniform",
                showlegend="uniform" not in told,
            ),
            **place,
        )
        told.add("uniform")
        figure.update_xaxes(title="average bits", dtick=1, **place)
        figure.update_yaxes(title=found["networks"][network]["metric"], **place)
        if all(value > 0 for value in values_of(picked)):
            figure.update_yaxes(type="log", dtick=1, **place)
    return styled(figure, 140 + 300 * -(-len(networks) // columns))


def values_of(picked: dict[str, dict[str, Any]]) -> list[float]:
    """All measured qualities."""
    return [row["quality"]["value"] for rows in picked.values() for row in rows.values() if row["quality"] is not None]


def kind_of(name: str) -> str:
    """The colour group of a candidate."""
    return name if name in OURS else "baseline" if name in BASELINES else "hand-made"


def styled(figure: go.Figure, height: int) -> go.Figure:
    """Fonts, margins and background of all figures."""
    figure.update_layout(
        width=WIDTH,
        height=height,
        template="plotly_white",
        margin={"l": 80, "r": 20, "t": 40, "b": 100},
        font={"family": "DejaVu Sans, sans-serif", "size": 12},
        legend={"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0.01, "x": 0},
    )
    figure.update_yaxes(automargin=True)
    return figure


def write_figure(figure: go.Figure, stem: Path) -> None:
    """``STEM.html``, and ``STEM.png`` where a Chromium is found."""
    page = figure.to_html(include_plotlyjs=True, full_html=True, config={"displayModeBar": False})
    page = page.replace("<body>", "<body style='margin:0'>")
    stem.with_suffix(".html").write_text(page, encoding="utf-8")
    browser = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        print(f"no Chromium found: {stem.with_suffix('.html')} has no PNG beside it")
        return
    with tempfile.TemporaryDirectory() as profile:
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--virtual-time-budget=10000",
            f"--user-data-dir={profile}",
            f"--window-size={WIDTH},{figure.layout.height}",
            f"--screenshot={stem.with_suffix('.png').resolve()}",
        ]
        page_url = stem.with_suffix(".html").resolve().as_uri()
        subprocess.run([browser, *options, page_url], check=True, capture_output=True, timeout=120)


def ordered(rows: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The best at fixed size first."""
    return sorted(rows.items(), key=lambda item: -item[1]["spearman_fixed"]["value"])


def table(heads: list[str], rows: Iterable[list[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [
        "| " + " | ".join(heads) + " |",
        "|---|" + "---:|" * (len(heads) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def interval(estimate: dict[str, float] | None, sign: bool = False, small: bool = False) -> str:
    """``0.52 [0.44, 0.60]``; with ``small`` four digits where all values are below 0.1."""
    if estimate is None:
        return ""
    largest = max(abs(estimate[end]) for end in ("value", "low", "high"))
    spec = f"{'+' if sign else ''}.{4 if small and largest < 0.1 else 2}f"
    return f"{estimate['value']:{spec}} [{estimate['low']:{spec}}, {estimate['high']:{spec}}]"


def number(estimate: dict[str, float] | None) -> str:
    """The value alone."""
    return "" if estimate is None else f"{estimate['value']:.2f}"


def shown(value: float, best: bool = False) -> str:
    """A quality with four digits, bold if it is the best."""
    text = "not finite" if value == float("inf") else f"{value:.4g}"
    return f"**{text}**" if best else text


if __name__ == "__main__":
    path = Path(sys.argv[1])
    print(write_report(json.loads(path.read_text(encoding="utf-8")), path.with_suffix("")))
