"""The verb ``front``: the measured front of a run or of a job, and the answer to a budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import InvalidInput
from ..options import Json, ServerUrl, StoreUrl, is_job_id


def front_command(
    out: Annotated[
        str, typer.Argument(metavar="DIR|JOB.yaml|ID", help="Output folder of a finished run, a job, or its id.")
    ],
    budget: Annotated[
        list[str] | None, typer.Option("--budget", metavar="PRICE=MAX", help="Keep points within it; repeatable.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="With a job: measure the optimum of this budget if it never was.")
    ] = False,
    server: ServerUrl = None,
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Show the measured front of a finished run; or answer a new budget for a job from the store.

    With an id it is the job of a server, while it runs or after.

    With a job neither model nor data is loaded: the best measured point within the budget, and the exact optimum of
    the scores for it, measured or predicted.

        bitfront front out/demo --budget size_mb=3

        bitfront front examples/efficientnet_lite0.yaml --budget size_mb=3

        bitfront front 3f2a9c51d0e7 --budget size_mb=3
    """
    if out.endswith((".yaml", ".yml")):
        _answer(Path(out), budget or [], measure, store, as_json)
        return
    if measure:
        raise InvalidInput("--measure needs a job: bitfront front JOB.yaml --budget PRICE=MAX --measure")
    if is_job_id(out):
        from .front_of_job import show_front

        show_front(out, budget or [], server, as_json)
        return
    from ..run_job import read_document
    from ..terminal import front_table, show

    document = read_document(out)
    limits = _budgets(budget or [], list(document["points"][0]["prices"]))
    kept = [
        point
        for point in document["points"]
        if all(point["prices"][name]["value"] <= limit * (1 + 1e-9) for name, limit in limits.items())
    ]
    if not kept:
        least = {name: min(point["prices"][name]["value"] for point in document["points"]) for name in limits}
        told = ", ".join(f"{name} >= {value:.4g}" for name, value in least.items())
        raise InvalidInput(f"no measured point meets the budget; the measured points reach {told}")

    def quality(point: dict[str, Any]) -> float:
        found = point["measured"]["holdout"] or point["measured"]["validation"]
        return float(found["value"])

    best = min(kept, key=quality) if limits else next(p for p in kept if p["id"] == document["best"])
    chosen = {**document, "points": kept, "best": best["id"]}
    if as_json:
        print(json.dumps({"best": best["id"], "points": kept}, allow_nan=False))  # noqa: T201
        return
    show(front_table(chosen), f"best      {best['id']}" + (f" within {', '.join(budget or [])}" if limits else ""))


def _answer(job_file: Path, budget: list[str], measure: bool, store: str | None, as_json: bool) -> None:
    from ..front_job import answer_job, parse_budgets, told

    progress = None
    if measure:
        from ..terminal import TerminalProgress

        progress = TerminalProgress(quiet=as_json)
    answer = answer_job(job_file, parse_budgets(budget), store=store, measure=measure, progress=progress)
    if as_json:
        print(json.dumps(answer.plain(), allow_nan=False))  # noqa: T201
        return
    for line in told(answer, job_file, budget):
        print(line)  # noqa: T201


def _budgets(given: list[str], known: list[str]) -> dict[str, float]:
    """Budgets as written on the command line."""
    limits = {}
    for item in given:
        name, _, value = item.partition("=")
        if name not in known:
            raise InvalidInput(f"--budget {item!r}: this run priced {', '.join(known)}; write PRICE=MAX")
        try:
            limits[name] = float(value)
        except ValueError:
            raise InvalidInput(f"--budget {item!r}: {value!r} is not a number; write PRICE=MAX") from None
    return limits
