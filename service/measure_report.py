"""What ``bitfront measure`` prints: plans, and what came of them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from .terminal import show

if TYPE_CHECKING:
    from ..hw_models.measure import Outcome, Plan

#: Reasons shown of each kind; the JSON document has all.
_SHOWN = 5


def show_plans(plans: list[Plan], as_json: bool) -> None:
    """Print what would be measured, and how long it would take."""
    if as_json:
        print(json.dumps([_plain_plan(made) for made in plans], allow_nan=False))  # noqa: T201
        return
    for made in plans:
        table = Table("op", "format", "kernels", "samples", "seconds", title=made.where, title_justify="left")
        for row in made.to_frame().itertuples(index=False):
            table.add_row(*(f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row))
        known = f", {made.known} in the table already" if made.known else ""
        about = timedelta(seconds=round(made.seconds))
        show(
            table, f"plan      {len(made.kernels)} kernels, about {about}{known}", *_reasons("refused", _refused(made))
        )


def _plain_plan(made: Plan) -> dict[str, Any]:
    return {
        "where": made.where,
        "kernels": len(made.kernels),
        "known": made.known,
        "seconds": made.seconds,
        "classes": made.to_frame().to_dict("records"),
        "refused": _refused(made),
    }


def _refused(made: Plan | Outcome) -> list[str]:
    return list(dict.fromkeys(reason for _, reason in made.refused))


def show_outcomes(plans: list[Plan], outcomes: list[Outcome], out: Path, as_json: bool) -> None:
    """Print what was measured, and why something was not."""
    if as_json:
        pairs = zip(plans, outcomes, strict=True)
        print(json.dumps([_plain_outcome(made, done, out) for made, done in pairs], allow_nan=False))  # noqa: T201
        return
    for made, done in zip(plans, outcomes, strict=True):
        show(
            f"measured  {len(done.rows)} kernels in {done.seconds:.1f} s (plan: {len(made.kernels)} in "
            f"{made.seconds:.1f} s), {made.known} in the table before: {made.where}",
            *_reasons("rejected", [each.reason for each in done.rejected]),
            *_reasons("refused", [*_refused(made), *_refused(done)]),
            *([_left(done)] if done.left else []),
        )
    if any(done.rows for done in outcomes):
        show(f"written   {out}")


def _plain_outcome(made: Plan, done: Outcome, out: Path) -> dict[str, Any]:
    return {
        "where": made.where,
        "out": str(out),
        "measured": len(done.rows),
        "known": made.known,
        "seconds": done.seconds,
        "planned_seconds": made.seconds,
        "rejected": [each.reason for each in done.rejected],
        "refused": [*_refused(made), *_refused(done)],
        "left": len(done.left),
        "left_seconds": sum(item.seconds for item in done.left),
    }


def _left(done: Outcome) -> str:
    about = timedelta(seconds=round(sum(item.seconds for item in done.left)))
    return f"left      {len(done.left)} kernels, about {about}: run the same command again"


def _reasons(head: str, reasons: list[str]) -> list[str]:
    more = [f"{head:9} {len(reasons) - _SHOWN} more: see --json"] if len(reasons) > _SHOWN else []
    return [f"{head:9} {reason}" for reason in reasons[:_SHOWN]] + more


def why_nothing(plans: list[Plan], outcomes: list[Outcome], seconds: float | None) -> str:
    """Why a run that had something to measure wrote no row."""
    left = [item for done in outcomes for item in done.left]
    if left and seconds is not None:
        shortest = min(sum(item.seconds for item in group) for made in plans for group in made.groups)
        return f"no group of kernels fits into --seconds {seconds:g}; the shortest takes about {shortest:.1f} s"
    return "no kernel gave stable samples: keep the machine free of other work, or give --keep-unstable"
