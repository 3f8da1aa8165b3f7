"""What a person at a terminal sees: progress bars with an estimate of the time left, tables, the log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table


class TerminalProgress:
    """Progress of a run: bars on a terminal, lines elsewhere, and everything in a log file.

    Args:
        log: file that every line is appended to; ``None``: no log.
        quiet: show nothing on the terminal.
    """

    def __init__(self, log: Path | None = None, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._log = log
        self._bar: Progress | None = None
        self._started, self._done, self._total = 0.0, 0.0, 0
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[float], None]]:
        """A stage of ``total`` steps with a bar, the time spent, the time left and the latest status."""
        started = time.perf_counter()
        self._write(f"{name}: started ({total} steps)")
        columns = (
            TextColumn("{task.description:<42}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}", style="dim", markup=False),
        )
        bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self._bar, self._started, self._done, self._total = bar, started, 0.0, max(total, 1)
        try:
            with bar:
                task = bar.add_task(name, total=self._total, status="")

                def advance(steps: float) -> None:
                    self._done += steps
                    bar.advance(task, steps)

                yield advance
        finally:
            self._bar = None
        seconds = time.perf_counter() - started
        self.console.print(f"[green]done[/] {name:<42} {seconds:7.1f} s", highlight=False)
        self._write(f"{name}: done in {seconds:.2f} s")

    def note(self, text: str) -> None:
        """One line of what was found out."""
        self.console.print(f"     {text}", style="dim", highlight=False, markup=False)
        self._write(text)

    def status(self, text: str) -> None:
        """How far the running stage has come: beside its bar, or a line with the time left where there is no bar."""
        self._write(text)
        if self._bar is not None and self.console.is_terminal:
            for task in self._bar.task_ids:
                self._bar.update(task, status=text.partition(": ")[2] or text)
        else:
            self.console.print(f"     {text}{self._left()}", style="dim", highlight=False, markup=False)

    def _left(self) -> str:
        """Steps done, and the time left if they go on as fast."""
        if self._bar is None or not self._done:
            return ""
        done = min(self._done, self._total)
        seconds = (time.perf_counter() - self._started) * (self._total - done) / done
        return f" ({done:.0f} of {self._total}, about {timedelta(seconds=round(seconds))} left)"

    def _write(self, line: str) -> None:
        if self._log is not None:
            with self._log.open("a") as stream:
                stream.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {line}\n")


def front_table(document: Mapping[str, Any]) -> Table:
    """The measured front and the uniform configurations, cheapest first."""
    prices = list(document["points"][0]["prices"])
    table = Table(title=f"{document['name']}: measured front", title_justify="left")
    for head in ("", "point", f"{document['metric']} held out", "95 % interval", f"{document['metric']} validation"):
        table.add_column(head, justify="left" if head in ("", "point") else "right", no_wrap=True)
    for name in prices:
        source = document["points"][0]["prices"][name]["source"]
        table.add_column(name if source == "exact" else f"{name} ({source})", justify="right")
    for point in document["points"]:
        if not (point["pareto"] or point["baseline"]):
            continue
        held, seen = point["measured"]["holdout"], point["measured"]["validation"]
        best = point["id"] == document["best"]
        mark = "*" if best else ("" if point["pareto"] else "dominated")
        interval = f"{held['low']:.4g} … {held['high']:.4g}" if held else ""
        cells = [mark, point["id"], f"{held['value']:.4g}" if held else "", interval, f"{seen['value']:.4g}"]
        cells += [f"{point['prices'][name]['value']:.4g}" for name in prices]
        table.add_row(*cells, style="bold" if best else ("" if point["pareto"] else "dim"))
    return table


def best_table(document: Mapping[str, Any]) -> Table:
    """The best configuration next to the uniform ones."""
    prices = list(document["points"][0]["prices"])
    table = Table(title="best next to uniform", title_justify="left")
    table.add_column("point")
    table.add_column(f"{document['metric']} held out", justify="right")
    for name in prices:
        table.add_column(name, justify="right")
    rows = [point for point in document["points"] if point["id"] == document["best"] or point["baseline"]]
    for point in sorted(rows, key=lambda point: point["id"] != document["best"]):
        held = point["measured"]["holdout"] or point["measured"]["validation"]
        cells = [point["id"], f"{held['value']:.4g}", *(f"{point['prices'][name]['value']:.4g}" for name in prices)]
        table.add_row(*cells, style="bold" if point["id"] == document["best"] else "")
    return table


def search_lines(document: Mapping[str, Any]) -> list[str]:
    """How the search went, in one or two lines."""
    search = document.get("search") or {}
    if not search.get("rounds"):
        return []
    last = search["rounds"][-1]
    gap = "" if last["gap"] is None else f", {100 * last['gap']:.1f} % of the predicted front not measured"
    screened = f", {search['screened']} screened out on part of the data" if search["screened"] else ""
    lines = [
        f"search    {last['evaluations']} measured in {len(search['rounds'])} rounds{screened}; hypervolume "
        f"{last['hypervolume']:.3f}{gap}; {search['ended']}"
    ]
    arms = sorted((arm for arm in search["proposers"] if arm["evaluations"]), key=lambda arm: -arm["evaluations"])
    if len(arms) > 1:
        told = ", ".join(f"{arm['name']} {arm['evaluations']} ({arm['improved']} improved)" for arm in arms)
        lines.append(f"proposers {told}")
    return lines


def show(*renderables: Any) -> None:
    """Print to standard output; a table is never narrower than its columns when the output is not a terminal."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    for item in renderables:
        console.print(item, highlight=False)
