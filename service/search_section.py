"""The part of the report that tells how the search went: why it ended, how far the surrogate holds, what was tried."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from .front_document import Front
from .labels import label, number


def search_section(front: Front) -> str:
    """Heading and sentences; the figures come after it."""
    assert front.search is not None
    search = front.search
    told = [
        f"{len(search.rounds)} rounds, {search.rounds[-1].evaluations} configurations measured on all validation data."
    ]
    if search.screened:
        told.append(f"{search.screened} more were screened out on part of it.")
    if search.ended:
        told.append(f"It ended because: {search.ended}.")
    best = search.rounds[-1].best
    if math.isfinite(best) and front.constraints:
        told.append(f"Best {label(front.metric)} within the constraints on validation data: {number(best)}.")
    return f"<h2>How the search went</h2><p>{escape(' '.join(told))}</p>{_surrogate(front)}"


def _surrogate(front: Front) -> str:
    """What the surrogate of the last round was, and how it did on points that it had not seen."""
    found = front.search.surrogate if front.search else None
    if found is None:
        return ""
    kinds = {
        "prior": "the scores and a power law (too few measurements for more)",
        "map": "the scores under a monotone map",
        "table": "the table of losses, refitted",
        "pairs": f"the table of losses, refitted, with {found.pairs} interactions of two layers",
    }
    parts = ", those on part of the data included" if front.search and front.search.screened else ""
    kind = kinds.get(found.kind, found.kind)
    told = f"The surrogate of the last round, fitted to {found.points} measurements{parts}: {kind}."
    if math.isfinite(found.left_out_spearman):
        told += f" It ranks points that were left out with Spearman ρ {found.left_out_spearman:.3f}."
    if math.isfinite(found.coverage.reached):
        told += (
            f" Of {found.coverage.predictions} predictions made before the measurement, {found.coverage.reached:.0%} "
            f"held in their interval (asked: {found.coverage.asked:.0%})."
        )
    return f"<p>{escape(told)}</p>"


def recipes_table(front: Front) -> str:
    """The recipes that were compared, best first; nothing where there was no choice."""
    if front.recipe is None or not front.recipe.tried:
        return ""
    rows = [
        [
            each.name + (" (chosen)" if each.name == front.recipe.name else ""),
            each.text(),
            f"{each.samples}{'' if each.whole else ', then left behind'}",
        ]
        for each in sorted(front.recipe.tried, key=lambda each: (not each.whole, each.value))
    ]
    rows += [[name, "left out", reason] for name, reason in front.recipe.left_out.items()]
    heads = ["quantized with", "loss relative to the median recipe", "validation samples"]
    return f"<h3>The recipes that were compared</h3>{plain_table(heads, rows)}"


def plain_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of escaped text that scrolls sideways."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
