"""``report.html`` of a joint search: which architecture and which formats to ship, the front, the architectures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from ..files import write_text
from .front_document import Front, Model, Point
from .joint_figures import architectures_figure, rounds_figure
from .labels import label, number
from .report import best_against_uniform, embedded, exports_section, facts_section, page, sentence, shipped
from .search_section import plain_table


def write_joint_report(document: Mapping[str, Any], path: str | Path) -> None:
    """Write the report of a joint run; a reader sees the old file or the new one, never half of it.

    Args:
        document: the content of ``front.json``.
        path: where to write.

    Raises:
        InvalidInput: the document is not a front; the message names the part.
    """
    write_text(path, render_joint_report(document))


def render_joint_report(document: Mapping[str, Any]) -> str:
    """The report as one HTML page."""
    front = Front.parse(document)
    best = front.best_point
    mine = front if best is None else front.model_copy(update={"model": model_of(document, front, best)})
    parts = [
        _header(document, mine),
        best_against_uniform(mine),
        exports_section(mine),
        *_figures(document, mine),
        facts_section(front),
    ]
    return page(f"{front.name} · bitfront", "\n".join(parts))


def model_of(document: Mapping[str, Any], front: Front, point: Point) -> Model:
    """The sites of a point's own architecture, for figures of its layers."""
    digest = next(each["architecture_digest"] for each in document["points"] if each["id"] == point.id)
    sites = document["architectures"][digest]["sites"]
    return front.model.model_copy(update={"sites": Model.model_validate({"sites": sites}).sites})


def _header(document: Mapping[str, Any], front: Front) -> str:
    found, best = document["joint_search"], front.best_point
    facts = [
        f"family {document['family']['name']}",
        f"{found['architectures']} architectures",
        f"{len(front.points)} genomes measured",
        front.created,
        f"bitfront {front.bitfront}",
    ]
    limits = ", ".join(f"{label(name)} ≤ {number(value)}" for name, value in front.constraints.items())
    ship = "<p class='ship'>Nothing can be recommended.</p>" if best is None else shipped(front, best)
    chosen = "" if best is None else _choices(document, best.id)
    notes = "".join(f"<p>Note: {escape(sentence(note))}</p>" for note in front.notes)
    return (
        f"<header><h1>Which network should I ship for {escape(front.name)}?</h1>"
        f"<p class='soft'>{escape(' · '.join(fact for fact in facts if fact))}</p></header>"
        f"<section class='answer'>{ship}{chosen}<p>{escape(sentence(front.best_reason))}</p>{notes}"
        f"<p class='soft'>Constraints: {escape(limits or 'none')}.</p></section>"
    )


def _choices(document: Mapping[str, Any], point: str) -> str:
    """The architecture of a point beside the largest one."""
    largest = next(each["architecture"] for each in document["points"] if each["baseline"])
    mine = next(each["architecture"] for each in document["points"] if each["id"] == point)
    names = [each["name"] for each in document["family"]["dimensions"]]
    rows = [
        [name, str(mine.get(name, "—")), str(largest.get(name, "—"))]
        for name in names
        if mine.get(name) != largest.get(name)
    ]
    if not rows:
        return "<p>Its architecture is the largest one.</p>"
    same = len(names) - len(rows)
    return (
        "<h3>Its architecture, where it differs from the largest one</h3>"
        + plain_table(["dimension", "chosen", "largest"], rows)
        + (f"<p class='soft'>{same} other dimensions are as in the largest one.</p>" if same else "")
    )


def _figures(document: Mapping[str, Any], front: Front) -> Iterable[str]:
    from .agreement_figure import agreement_figure
    from .front_figure import front_figure
    from .layer_figures import layer_map

    prices = [metric for metric in front.price_metrics if metric in front.objectives]
    yield "<h2>The front</h2>"
    for metric in prices:
        yield embedded(
            front_figure(front, metric),
            f"Quality against {label(metric)}; uniform configurations are those of the largest architecture. Bars are "
            "intervals, grey points are dominated, hollow ones miss a constraint. The steps join the best in this "
            "plane. Hover for the numbers.",
        )
    yield "<h2>Architectures and formats along the front</h2>"
    yield embedded(
        architectures_figure(document),
        f"Every Pareto-optimal genome, by rising {label(prices[0])}: above, the value of each dimension (dark: the "
        "largest; no mark: it does not exist there); below, the share of the weights in each format.",
    )
    if front.best_point is not None:
        yield f"<h2>The format of every layer in {escape(front.best_point.label)}</h2>"
        yield embedded(layer_map(front, front.best_point), "Layers in the order of the forward pass.")
    yield "<h2>Was the prediction right?</h2>"
    yield embedded(
        agreement_figure(front),
        "Every measured genome; a perfect prediction lies on the line. Its scale and the offset of each architecture "
        "were fitted to these measurements.",
    )
    yield "<h2>How the search went</h2>"
    yield embedded(
        rounds_figure(document),
        "Hypervolume of what was measured after each round, scaled by the baselines, and architectures looked at. "
        f"It ended because: {document['joint_search']['ended']}.",
    )
