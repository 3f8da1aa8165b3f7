"""``report.html``: one file that answers what to ship, shows why, and says how it was found.

Plotly's JavaScript is inlined once, so the file opens from disk without a network. Everything that comes from the
document is HTML-escaped; figures are embedded as JSON in which ``<`` cannot occur.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import write_text
from .front_document import Front, Point
from .labels import count, label, limit_text, number, price_label, share_text, unit
from .palette import format_colour, quantizes_activations
from .search_section import plain_table, recipes_table, search_section
from .tables import format_order, histogram
from .trust_table import trust_section

if TYPE_CHECKING:
    import plotly.graph_objects as go

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2127; --soft: #5c6570; --paper: #fff; --panel: #f4f6f8; --line: #d9dee4;
  --best: #d01c6f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa4b0; --paper: #14171b; --panel: #1e2329;
  --line: #363d46; --best: #ff74b1; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  max-width: 1160px; padding: 1.2rem 1.2rem 4rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .4rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
.soft, figcaption { color: var(--soft); font-size: .9rem; } h1, p, figcaption { overflow-wrap: anywhere; }
.answer { background: var(--panel); border-left: 5px solid var(--best); padding: .8rem 1.1rem; margin: 1rem 0; }
.answer p { margin: .3rem 0; } .answer .ship { font-size: 1.2rem; font-weight: 600; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; width: 100%; }
th, td { text-align: left; padding: .35rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td { font-variant-numeric: tabular-nums; } th { font-weight: 600; } tr.best { background: var(--panel); }
tr.best th { color: var(--best); } .interval { color: var(--soft); font-size: .85em; white-space: nowrap; }
.bar { display: flex; height: 1.1rem; margin: .5rem 0 .2rem; border-radius: 3px; overflow: hidden; }
.key { display: inline-block; width: .8rem; height: .8rem; margin: 0 .3rem 0 0; vertical-align: -1px; }
.used { display: inline-block; margin-right: 1rem; }
figure { margin: .6rem 0; } pre { background: var(--panel); padding: .8rem;
  overflow-x: auto; font-size: .85rem; } details { margin: .6rem 0; } summary { cursor: pointer; font-weight: 600; }
"""

_SCRIPT = """
(function () {
  var dark = matchMedia('(prefers-color-scheme: dark)');
  function theme() { return {'font.color': dark.matches ? '#e6e9ee' : '#1d2127'}; }
  var plots = document.querySelectorAll('div.plot');
  plots.forEach(function (plot) {
    var spec = JSON.parse(plot.nextElementSibling.textContent);
    Plotly.newPlot(plot, spec.data, spec.layout, {responsive: true, displaylogo: false}).then(function () {
      Plotly.relayout(plot, theme());
    });
  });
  dark.addEventListener('change', function () {
    plots.forEach(function (plot) { Plotly.relayout(plot, theme()); });
  });
})();
"""


def write_report(document: Mapping[str, Any], path: str | Path) -> None:
    """Write the report of a run; a reader sees the old file or the new one, never half of it.

    Args:
        document: the content of ``front.json``.
        path: where to write, usually ``report.html``.

    Raises:
        InvalidInput: the document is not a front; the message names the part.
    """
    write_text(path, render_report(Front.parse(document)))


def render_report(front: Front) -> str:
    """The report as one HTML page."""
    parts = [
        _header(front),
        best_against_uniform(front),
        exports_section(front),
        *_figures(front),
        facts_section(front),
    ]
    return page(f"{front.name} · bitfront", "\n".join(parts))


def page(title: str, body: str) -> str:
    """A page that opens from disk, with Plotly in it.

    Args:
        title: plain text.
        body: HTML, with figures as ``embedded`` gives them.
    """
    from plotly.offline import get_plotlyjs

    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head>\n<body>\n{body}\n<script>{_SCRIPT}</script>\n</body></html>\n"
    )


def _header(front: Front) -> str:
    facts = [front.model.name, f"{len(front.model.sites)} layers", f"{len(front.points)} configurations evaluated"]
    facts += [front.created, f"bitfront {front.bitfront}"]
    limits = ", ".join(limit_text(name, value) for name, value in front.constraints.items())
    best = front.best_point
    against = front.best_against_uniform
    if against is not None and against.tie and against.rival in front.by_id and "a tie" not in front.best_reason:
        rival = escape(front.by_id[against.rival].label)
        tie = f"<p>A tie: on held-out data the interval of the difference to {rival} holds 0.</p>"
    else:
        tie = ""
    ship = "<p class='ship'>No configuration can be recommended.</p>" if best is None else shipped(front, best)
    return (
        f"<header><h1>What should I ship for {escape(front.name)}?</h1>"
        f"<p class='soft'>{escape(' · '.join(fact for fact in facts if fact))}</p></header>"
        f"<section class='answer'>{ship}<p>{escape(sentence(front.best_reason))}</p>{tie}"
        f"{''.join(f'<p>Note: {escape(sentence(note))}</p>' for note in front.notes)}"
        f"<p class='soft'>Constraints: {escape(limits or 'none')}.</p></section>"
    )


def shipped(front: Front, point: Point) -> str:
    """What to ship: a point with its quality and prices, and the share of its weights in each format."""
    return f"<p class='ship'>Ship {escape(point.label)}: {escape(_claims(front, point))}.</p>{_bits_bar(front, point)}"


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return "" if not text else text[0].upper() + text[1:].rstrip(".") + "."


def _claims(front: Front, point: Point) -> str:
    """Quality and prices of a point in one line."""
    measured = point.measured.holdout or point.measured.validation
    parts = []
    if measured is not None:
        split = "held-out" if point.measured.holdout else "validation"
        parts.append(f"{split} {label(front.metric).split(' (')[0]} {measured.text(unit(front.metric))}")
    for metric in front.price_metrics:
        if metric in point.prices:
            price = point.prices[metric]
            source = f" ({price.source})" if price.source not in ("", "exact") else ""
            name = "average " if metric == "avg_bits" else "" if unit(metric) else f"{metric} "
            parts.append(f"{name}{number(price.value)} {unit(metric)}".rstrip() + source)
    return ", ".join(parts)


def _bits_bar(front: Front, point: Point) -> str:
    """The share of the weights in each format, as one bar with a key."""
    counts = histogram(front, point)
    used = [(str(name), row["share"], row["layers"]) for name, row in counts.iterrows() if row["layers"]]
    bar = "".join(f"<div style='width:{100 * share:.2f}%;background:{_fill(n)}'></div>" for n, share, _ in used)
    key = "".join(
        f"<span class='used'><span class='key' style='background:{_fill(name)}'></span>"
        f"{escape(name)}: {count(layers, 'layer')}, {share_text(share)} of the weights</span>"
        for name, share, layers in used
    )
    return f"<div class='bar' aria-hidden='true'>{bar}</div><p class='soft'>{key}</p>"


def _fill(format_name: str) -> str:
    """CSS background of a format: its colour, striped if it quantizes activations too."""
    colour = format_colour(format_name)
    stripes = f"repeating-linear-gradient(45deg,{colour} 0 4px,#6b6b6b 4px 5px)"
    return stripes if quantizes_activations(format_name) else colour


def best_against_uniform(front: Front) -> str:
    """The best configuration against the uniform ones."""
    rows: list[tuple[str, bool, list[str]]] = []
    best = front.best_point
    for point in _distinct(front):
        cells = [
            _interval(measured) if measured is not None else "not measured"
            for measured in (point.measured.holdout, point.measured.validation)
        ]
        for metric in front.price_metrics:
            price = point.prices.get(metric)
            cells.append("—" if price is None else _interval(price))
        cells.append("met" if point.feasible else "missed")
        name = escape(point.label)
        rows.append((f"best: {name}" if point is best else name, point is best, cells))
    heads = [f"{label(front.metric)}, held-out", f"{label(front.metric)}, validation"]
    for metric in front.price_metrics:
        source = ", ".join(front.sources(metric))
        heads.append(f"{label(metric)}" + (f", {source}" if source not in ("", "exact") else ""))
    head = "".join(f"<th>{escape(text)}</th>" for text in ["configuration", *heads, "constraints"])
    body = "".join(
        f"<tr{' class=best' if is_best else ''}><th>{name}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for name, is_best, cells in rows
    )
    note = "Lower is better in every column. Brackets hold the interval. Held-out data was not seen by the search."
    return (
        f"<h2>Best against uniform</h2><div class='scroll'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div><p class='soft'>{note}</p>"
    )


def _distinct(front: Front) -> list[Point]:
    """The best point, then the uniform ones without it."""
    best = front.best_point
    return [*([best] if best is not None else []), *(point for point in front.baselines if point is not best)]


def _interval(found: Any) -> str:
    """A number with its interval on the next line."""
    if not math.isfinite(found.value):
        return "not finite"
    if not (found.below or found.above):
        return number(found.value)
    return f"{number(found.value)}<br><span class='interval'>[{number(found.low)}, {number(found.high)}]</span>"


def exports_section(front: Front) -> str:
    """What was exported."""
    if not front.exports:
        return "<h2>Export</h2><p>Nothing was exported.</p>"
    rows = [
        [
            export.target,
            export.path,
            *(
                "—" if size is None else f"{size / 1e6:.3f}"
                for size in (export.bytes_on_disk, export.tensor_bytes, export.predicted_bytes)
            ),
            number(export.relative_error),
            number(export.bound),
        ]
        for export in front.exports
    ]
    heads = [
        "target",
        "path",
        "size on disk (MB)",
        "its tensors",
        "predicted",
        "relative error, loaded back",
        "allowed",
    ]
    return f"<h2>Export</h2>{plain_table(heads, rows)}{_too_large(front)}"


def _too_large(front: Front) -> str:
    """Says so where a file is larger than the limit: the price counts weights and scales, a file holds a graph too."""
    limit = front.constraints.get("size_mb", math.inf)
    large = [e.target for e in front.exports if e.bytes_on_disk is not None and e.bytes_on_disk / 1e6 > limit]
    if not large:
        return ""
    return (
        f"<p>On disk the export for {escape(', '.join(large))} is larger than the limit of {number(limit)} MB, which "
        "was applied to the weights and scales; the file also holds the graph.</p>"
    )


def _figures(front: Front) -> Iterable[str]:
    from .agreement_figure import agreement_figure
    from .front_figure import front_figure
    from .layer_figures import layer_map, points_map, sensitivity_figure

    prices = [metric for metric in front.price_metrics if metric in front.objectives] or front.price_metrics
    yield "<h2>The front</h2>"
    for metric in prices:
        caption = (
            f"Quality against {price_label(front, metric)}. Bars are intervals, grey points are dominated, hollow ones "
            "miss a constraint. The steps join the best in this plane; green points above win in another objective. "
            "Hover for the numbers."
        )
        yield embedded(front_figure(front, metric), caption)
    if front.best_point is not None:
        yield f"<h2>The format of every layer in {escape(front.best_point.label)}</h2>"
        yield embedded(
            layer_map(front, front.best_point),
            "Layers in the order of the forward pass; a crossed square: activations too.",
        )
    if prices and front.model.sites:
        yield "<h2>The format of every layer along the front</h2>"
        caption = f"Pareto-optimal and uniform configurations by rising {label(prices[0])}; ★ is the best."
        yield embedded(points_map(front, prices[0]), caption)
    for proxy, scores in front.sensitivity.items():
        yield f"<h2>How sensitive each layer is: {escape(proxy)}</h2>"
        took = f" Computed in {number(scores.seconds)} s." if math.isfinite(scores.seconds) else ""
        yield embedded(sensitivity_figure(front, proxy), f"Predicted loss if only this layer is quantized.{took}")
    if any("quality" in point.predicted for point in front.points):
        yield "<h2>Was the prediction right?</h2>"
        caption = (
            "Every evaluated configuration; a perfect prediction lies on the line. The scale of the predictions was "
            "fitted to these measurements, their order was not."
        )
        yield embedded(agreement_figure(front), caption)
    if front.trust is not None:
        from .trust_figure import trust_figure

        yield trust_section(front.trust)
        caption = "Rank correlation with what was measured; beyond the size itself only what is at fixed size counts."
        yield embedded(trust_figure(front.trust), caption)
    if front.search is not None and front.search.rounds:
        from .search_figures import progress_figure, proposers_figure

        yield search_section(front)
        caption = (
            "After every round: how much of the plane the measured front dominates (log quality against the prices, "
            "scaled by the uniform configurations), and what of the predicted front is not measured yet."
        )
        yield embedded(progress_figure(front.search), caption)
        if any(arm.evaluations for arm in front.search.proposers):
            caption = (
                "Who proposed what was measured after the first rounds. Credit is the mean rank of what a proposer's "
                "candidates gained, recent rounds counting most; the next round is shared out by it."
            )
            yield embedded(proposers_figure(front.search), caption)


def embedded(figure: go.Figure, caption: str) -> str:
    """A figure with its caption."""
    spec = figure.to_json().replace("<", "\\u003c")
    return (
        f"<figure><div class='plot' role='img' aria-label=\"{escape(caption)}\"></div>"
        f"<script type='application/json'>{spec}</script><figcaption>{escape(caption)}</figcaption></figure>"
    )


def facts_section(front: Front) -> str:
    """How the run was made: formats, stages, prices, environment, job."""
    prices = [[label(name), table.source, table.provenance] for name, table in front.price_tables.items()]
    formats = ", ".join(format_order(front))
    job = json.dumps(front.job, indent=2, default=str)
    ties = "; ".join(f"{', '.join(tie.sites)} ({tie.reason})" for tie in front.model.ties)
    left = "; ".join([*(f"{n} ({why})" for n, why in front.model.skipped.items()), *front.model.unused])
    stages = [[name, number(value)] for name, value in front.seconds.items()]
    ran = [
        [f"{each.stage} {each.detail}".rstrip(), str(each.ran), str(each.reused), number(each.seconds)]
        for each in front.stages
    ]
    failed = [[name, reason] for name, reason in front.failed.items()]
    return (
        "<h2>How it was made</h2>"
        f"<p>Formats offered: {escape(formats)}. Ties: {escape(ties or 'none')}. "
        f"Left in float: {escape(left or 'no layer')}.</p>"
        + (f"<h3>Configurations that failed</h3>{plain_table(['configuration', 'reason'], failed)}" if failed else "")
        + recipes_table(front)
        + (f"<h3>Where the time went</h3>{plain_table(['stage', 'seconds'], stages)}" if stages else "")
        + (
            f"<h3>What ran and what was known</h3>{plain_table(['part', 'ran', 'reused', 'seconds'], ran)}"
            if ran
            else ""
        )
        + f"<h3>Where the prices come from</h3>{plain_table(['price', 'source', 'provenance'], prices)}"
        f"{_ordered(front)}"
        f"<h3>Environment</h3>{plain_table(['what', 'value'], [[k, str(v)] for k, v in front.environment.items()])}"
        f"<details><summary>The job</summary><pre>{escape(job)}</pre></details>"
    )


def _ordered(front: Front) -> str:
    """Rank correlations of a document without a trust report."""
    if front.trust is not None:
        return ""
    rows = []
    for name in dict.fromkeys([*front.proxies, *front.sensitivity]):
        score, scores = front.proxies.get(name), front.sensitivity.get(name)
        rho = "—" if score is None or score.spearman is None else f"{score.spearman:.3f}"
        points = "—" if score is None else str(score.points)
        rows.append([name, rho, points, "—" if scores is None else number(scores.seconds)])
    return (
        "<h3>How well the proxies ordered what was measured</h3>"
        f"{plain_table(['proxy', 'Spearman ρ', 'points', 'seconds'], rows)}"
    )
