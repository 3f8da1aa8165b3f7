"""The front of a job on a server, and its answer to a budget, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .printing import print_json


def show_front(job_id: str, budget: list[str], server: str | None, as_json: bool) -> None:
    """Print the front of a job so far, or with budgets the best answer to them."""
    from ..client import Client
    from ..front_job import parse_budgets
    from ..terminal import show

    with Client(server) as client:
        found = client.solve(job_id, **parse_budgets(budget)) if budget else client.front_document(job_id)
        best = found.get("best")  # a job that searches architectures tells it with its front
        if not (budget or as_json) and found["state"] == "succeeded" and found.get("kind") != "joint":
            best = client.solve(job_id)["best"]
    if as_json:
        print_json(found)
    elif budget:
        show(*_answer(found))
    else:
        show(*_front(found, best))


def _front(found: Mapping[str, Any], best: Mapping[str, Any] | None) -> list[Any]:
    from rich.table import Table

    counts = f"{found['measured']} measured of {found['proposed']} proposed"
    if found.get("kind") == "joint":
        counts += f", {found['architectures']} architectures"
    if not found["points"]:
        what = "no quantized network" if found["measured"] else "nothing"
        return [f"job       {found['job']} is {found['state']}: {what} is measured yet ({counts})"]
    prices = list(found["points"][0]["prices"])
    table = Table(title=f"job {found['job']} ({found['state']}): measured front, {counts}", title_justify="left")
    for head in ("", "point", f"{found['metric']} held out", "95 % interval", f"{found['metric']} validation", *prices):
        table.add_column(head, justify="left" if head in ("", "point") else "right", no_wrap=True)
    for point in found["points"]:
        held, seen = point["measured"].get("holdout"), point["measured"].get("validation")
        chosen = best is not None and point["id"] == best["id"]
        cells = ["*" if chosen else "" if point["pareto"] else "dominated", point["id"][:16]]
        cells += [f"{held['value']:.4g}", f"{held['low']:.4g} … {held['high']:.4g}"] if held else ["", ""]
        cells += [f"{seen['value']:.4g}" if seen else ""]
        cells += [f"{point['prices'][name]['value']:.4g}" for name in prices]
        table.add_row(*cells, style="bold" if chosen else "" if point["pareto"] else "dim")
    lines: list[Any] = [table] if best is None else [table, f"best      {best['id']}: {best['reason']}"]
    if found.get("unpriced"):
        lines.append(f"left out  {found['unpriced']} measured genomes, whose prices the store does not have")
    return lines


def _answer(found: Mapping[str, Any]) -> list[str]:
    limits = ", ".join(f"{name} <= {limit:g}" for name, limit in found["budgets"].items())
    lines = [f"budget    {limits}; {found['points']} configurations measured"]
    best, optimum = found["best"], found["resolved"]
    if best is None:
        lines.append("measured  no measured configuration meets it")
    else:
        quality = best["measured"].get("holdout") or best["measured"].get("validation")
        lines.append(f"measured  {best['id']}: {found['metric']} {_interval(quality)}; {_prices(best['prices'])}")
        lines.append(f"          {best['reason']}")
    lines.append(f"optimum   {optimum['digest']} of {found['proxy']}: {_prices(optimum['prices'])}")
    if optimum["is_measured"]:
        lines.append(f"          MEASURED {found['metric']} {_interval(optimum['measured'])}")
    elif optimum["predicted"]["value"] is not None:
        lines.append(f"          PREDICTED {found['metric']} {_interval(optimum['predicted'])}, not measured")
    else:
        lines.append(f"          not measured, and too little is for a prediction of {found['metric']}")
    return lines


def _interval(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.4g} [{found['low']:.4g}, {found['high']:.4g}]"


def _prices(prices: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(
        f"{name} {price['value']:.4g}" + ("" if price["source"] == "exact" else f" ({price['source']})")
        for name, price in prices.items()
    )
