"""The trust report as a table: for a page, and for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from .document_parts import Interval
from .front_document import CalibratedMap, Trust, TrustRow
from .labels import number

if TYPE_CHECKING:
    from rich.table import Table

HEADS = (
    "proxy",
    "Kendall τ",
    "τ at fixed size",
    "Spearman ρ",
    "ρ at fixed size",
    "regret, top {top}",
    "regret at fixed size",
    "off by a factor, power law",
    "off by a factor, monotone",
    "seconds",
)


def heads(trust: Trust) -> list[str]:
    """The names of the columns."""
    return [head.format(top=trust.top) for head in HEADS]


def cells(name: str, row: TrustRow) -> list[tuple[str, str]]:
    """A row as (value, interval) texts; a dash where nothing can be said."""
    estimates = (row.kendall, row.kendall_fixed, row.spearman, row.spearman_fixed)
    return [
        (f"{name} (baseline)" if row.baseline else name, ""),
        *(_estimate(found) for found in estimates),
        *((_two(regret), "") for regret in (row.regret, row.regret_fixed)),
        *((_factor(found), "") for found in (row.power, row.monotone)),
        ("—" if row.baseline else number(row.seconds), ""),
    ]


def told(trust: Trust) -> str:
    """How to read the columns, in a paragraph of plain text."""
    return (
        f"{trust.points} measured configurations; {trust.pairs} pairs of them differ in size by at most "
        f"{100 * trust.tolerance:.0f} %. τ and ρ: 1 is the right order, 0 is chance; brackets hold the 95 % interval. "
        "At fixed size: τ over the pairs of the same size, ρ with the size partialled out; this is what a proxy knows "
        f"beyond the size. Regret: what is lost by measuring only the {trust.top} that are predicted to be best (at "
        f"fixed size: the best of each of {trust.strata} size strata); 0 is nothing, 1 is as much as with a random "
        "choice. Off by a factor: the median prediction of one configuration from a map fitted to the others."
    )


def trust_section(trust: Trust) -> str:
    """The table with its explanation as HTML."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads(trust))
    rows = [_html_row(cells(name, row), trust.choice is not None and trust.choice.proxy == name)
            for name, row in trust.rows.items()]  # fmt: skip
    choice = f"<p>Chosen by the measurements: {escape(trust.choice.reason)}.</p>" if trust.choice is not None else ""
    return (
        "<h2>How far can the predictions be trusted?</h2>"
        f"{choice}<div class='scroll'><table class='trust'><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div><p class='soft'>{escape(told(trust))}</p>"
    )


def terminal_table(trust: Trust, title: str) -> Table:
    """The table for a terminal; intervals stand below their values."""
    from rich.markup import escape as plain
    from rich.table import Table

    table = Table(title=plain(title), title_justify="left")
    for position, head in enumerate(heads(trust)):
        table.add_column(head, justify="right" if position else "left", no_wrap=not position, min_width=6)
    chosen = trust.choice.proxy if trust.choice else None
    for name, row in trust.rows.items():
        texts = [plain("\n".join(part for part in pair if part)) for pair in cells(name, row)]
        table.add_row(*texts, style="bold" if name == chosen else "dim" if row.baseline else "")
    return table


def _html_row(texts: Sequence[tuple[str, str]], chosen: bool) -> str:
    (name, _), *rest = texts
    body = "".join(
        f"<td>{escape(value)}{f'<br><span class=interval>{escape(interval)}</span>' if interval else ''}</td>"
        for value, interval in rest
    )
    return f"<tr{' class=best' if chosen else ''}><th>{escape(name)}</th>{body}</tr>"


def _estimate(found: Interval | None) -> tuple[str, str]:
    if found is None:
        return "—", ""
    return _two(found.value), f"[{_two(found.low)}, {_two(found.high)}]" if found.above or found.below else ""


def _two(value: float | None) -> str:
    return "—" if value is None else f"{value + 0.0:.2f}"


def _factor(found: CalibratedMap | None) -> str:
    return "—" if found is None else f"{found.factor:.2f}"
