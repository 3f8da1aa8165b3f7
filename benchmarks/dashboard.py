"""How soon the dashboard shows a large job, and how soon a slider is answered.

    python benchmarks/dashboard.py [--candidates 20000] [--repeats 5] [--json out/dashboard.json]

A job with that many measured candidates of 50 layers in five formats lies in SQLite. Told are

server side     reading the columns from the store (the first time and again), the answer of the API as the client gets
                it, the view, the figure and its JSON, and the answer to budgets: in this process, medians;
in a browser    headless chromium against ``bitfront serve --dashboard`` in a process of its own. First paint: from the
                click on the link to the page Front to the drawn plot. The very first of a started server is told apart:
                the server reads the job, the dashboard imports its libraries. Later ones are of new sessions that sign
                in before the clock starts. Slider: from the key to the new sentence with the optimum, and to the
                redrawn plot.

The load of the machine is told beside the numbers. Figures of docs/dashboard.md come from here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bitfront.dashboard.answers import resolve
from bitfront.dashboard.figures.front_plane import front_plane
from bitfront.dashboard.sources import MOST_POINTS
from bitfront.dashboard.view import of_columns
from bitfront.service.client import Client
from bitfront.service.job_columns import columns_of
from bitfront.store import Queue, Store
from playwright.sync_api import Browser, Page, sync_playwright
from service_data import filled, free_port

PATIENCE = 120_000  # milliseconds for anything to appear
DRAWN = """() => {
    const plot = document.querySelector('.js-plotly-plot');
    return plot && plot.calcdata && plot.querySelector('.main-svg .xtick');
}"""
LINES = "() => [...document.querySelectorAll('.js-plotly-plot .shapelayer path')].map(p => p.getAttribute('d')).join()"
Row = dict[str, Any]


def in_process(store: Store, job: str, repeats: int) -> list[Row]:
    """Milliseconds of each step in this process."""
    found = Queue(store).job(job)
    rows: list[Row] = []

    def timed(name: str, call: Callable[[], Any], times: int = repeats) -> Any:
        seconds = []
        for _ in range(times):
            started = time.perf_counter()
            made = call()
            seconds.append(time.perf_counter() - started)
        rows.append({"what": name, "ms": 1000 * statistics.median(seconds), "worst_ms": 1000 * max(seconds)})
        return made

    timed("columns, the first time", lambda: columns_of(store, found, MOST_POINTS), 1)
    columns = timed("columns, again", lambda: columns_of(store, found, MOST_POINTS))
    view = timed("view of the columns", lambda: of_columns(columns))
    timed("figure, the first of a view", lambda: front_plane(view, "size_mb").to_json(), 1)
    sizes = view.prices["size_mb"][:, 0]
    limits = iter([float(sizes.min() + share * (sizes.max() - sizes.min())) for share in _shares(2 * repeats)])
    timed("one budget: optimum", lambda: resolve(view, {"size_mb": next(limits)}))

    def slider() -> str:
        answer = resolve(view, {"size_mb": next(limits)})
        return str(front_plane(view, "size_mb", answer=answer).to_json())

    timed("one budget: optimum and figure", slider)
    operations = float(view.prices["bops"][:, 0].max())
    budgets = iter([{"size_mb": float(sizes.max()) * s, "bops": operations * s} for s in _shares(repeats)])
    timed("two budgets: optimum", lambda: resolve(view, next(budgets)))
    return rows


def _shares(count: int) -> list[float]:
    return [0.3 + 0.5 * index / count for index in range(count)]


@contextmanager
def served(store: Path, folder: Path) -> Iterator[tuple[str, str, str]]:
    """``bitfront serve --dashboard`` without a worker: addresses of the dashboard and the API, and a token."""
    api, dashboard = free_port(), free_port()
    options = ["--store", f"sqlite:///{store}", "--outputs", str(folder / "jobs"), "--no-worker", "--port", str(api)]
    options += ["--dashboard", "--dashboard-port", str(dashboard), "--json"]
    program = subprocess.Popen(
        [sys.executable, "-m", "bitfront.service.cli", "serve", *options],
        env={**os.environ, "XDG_CONFIG_HOME": str(folder / "config")}, cwd=folder, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert program.stdout is not None
        started = json.loads(program.stdout.readline())
        yield f"http://127.0.0.1:{dashboard}", started["url"], started["token"]
    finally:
        program.send_signal(signal.SIGTERM)
        program.wait(60)


def signed_in(browser: Browser, url: str, token: str) -> Page:
    """A new session at the page Jobs."""
    page = browser.new_context(viewport={"width": 1280, "height": 1400}).new_page()
    page.set_default_timeout(PATIENCE)
    until = time.monotonic() + PATIENCE / 1000
    while True:
        try:
            page.goto(url)
            break
        except Exception:  # not yet listening
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
    page.get_by_label("Token", exact=True).fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Jobs", exact=True).wait_for()
    return page


def first_paint(page: Page) -> float:
    """Milliseconds from the click on the link to the page Front until its plot is drawn."""
    started = time.perf_counter()
    page.get_by_role("link", name="Front", exact=True).click()
    page.wait_for_function(DRAWN, polling=20)
    return 1000 * (time.perf_counter() - started)


def slider_moves(page: Page, repeats: int) -> tuple[list[float], list[float]]:
    """Milliseconds from a key on the budget of the size until the new sentence, and until the redrawn plot."""
    slider = page.get_by_role("slider").first
    for _ in range(30):
        slider.press("ArrowLeft")
    page.get_by_text("Exact optimum of the scores").wait_for()
    page.wait_for_timeout(3000)
    told, drawn = [], []
    for _ in range(repeats):
        before = page.get_by_text("Exact optimum of the scores").text_content()
        lines = page.evaluate(LINES)
        slider = page.get_by_role("slider").first
        slider.focus()
        started = time.perf_counter()
        slider.press("ArrowLeft")
        page.wait_for_function(
            "before => [...document.querySelectorAll('p')].some(p => p.textContent.includes('Exact optimum') "
            "&& p.textContent !== before)",
            arg=before, polling=10,
        )  # fmt: skip
        told.append(1000 * (time.perf_counter() - started))
        page.wait_for_function(f"before => ({LINES})() !== before", arg=lines, polling=10)
        drawn.append(1000 * (time.perf_counter() - started))
        page.wait_for_timeout(1000)
    return told, drawn


def in_browser(store: Path, folder: Path, job: str, repeats: int) -> list[Row]:
    """First paint and slider."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        raise SystemExit("no chromium on PATH: apt-get install chromium")
    rows: list[Row] = []

    def tell(name: str, found: list[float]) -> None:
        rows.append({"what": name, "ms": statistics.median(found), "worst_ms": max(found)})

    with served(store, folder) as (url, api, token), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = signed_in(browser, url, token)
        tell("first paint, the first of a started server", [first_paint(page)])
        page.context.close()
        with Client(api, token) as client:
            asked = []
            for _ in range(repeats):
                started = time.perf_counter()
                client.columns(job, MOST_POINTS)
                asked.append(1000 * (time.perf_counter() - started))
        paints = []
        for _ in range(repeats):
            page = signed_in(browser, url, token)
            paints.append(first_paint(page))
            if len(paints) < repeats:
                page.context.close()
        tell("columns over HTTP", asked)
        tell("first paint of a new session", paints)
        told, drawn = slider_moves(page, repeats)
        tell("slider: to the new optimum", told)
        tell("slider: to the redrawn plot", drawn)
        browser.close()
    return rows


def main() -> None:
    """Build the job, measure, print, write."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--candidates", type=int, default=20_000)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "store.db"
        store = Store(f"sqlite:///{path}")
        job = filled(store, given.candidates)
        rows = in_process(store, job, given.repeats)
        store.close()
        rows += in_browser(path, Path(place), job, given.repeats)
    for row in rows:
        print(f"{row['what']:45s} {row['ms']:9.1f} ms   worst {row['worst_ms']:9.1f} ms")
    machine = {"cores": os.cpu_count(), "load_before": before, "load_after": os.getloadavg()[0]}
    machine |= {"platform": platform.platform(), "python": platform.python_version()}
    print(f"{given.candidates} candidates, {machine['cores']} cores, load {before:.1f} to {machine['load_after']:.1f}")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        date = datetime.now(UTC).isoformat(timespec="seconds")
        told = {"candidates": given.candidates, "rows": rows, "machine": machine, "date": date}
        given.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
