"""Accuracy against latency on NAS-Bench-201, all 15,625 networks in a table: hypervolume against number of queries.

    python benchmarks/architecture_tabular.py --seeds 20 --plot out/architecture_tabular.html

A query is one validation accuracy (CIFAR-10, 12 epochs). Rows say who knows what besides:

- ``random``, ``regularised evolution``, ``NSGA-II``, ``TPE`` and ``model-based`` know the answers to the six questions
  of a cell and learn the latency with the accuracy;
- ``…, latency known`` ask a table for the latency before they query;
- ``model-based, latency and graph known`` describes a cell besides by counts of operations, in all and on paths from
  input to output, and its depth: computed from the cell, nothing is measured.

So each of the first two rows of ``model-based`` knows what a row of the rival knows.

Every method asks for five networks at a time. The reference point is 1.1 times the extent of the true front beyond its
best point (``front``; networks far from the front count nothing), or the worst of all networks (``worst``); no method
is told it. A run ends where 99 % of the true hypervolume is reached with both, or at its cap. Runs that did not reach
it count as later than the cap; a median beyond a cap is written ``>cap``. Results are kept as JSON in the folder
``--out``, a file per method, and a run that is there is not repeated: methods may run at the same time, each in its own
process. Needs the reference data (``BITFRONT_REFERENCE_DATA``).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import moocore
import numpy as np
from bitfront.architecture import Choices
from bitfront.files import write_text
from bitfront.hw_models.architecture import encode_cells
from bitfront.search.families.nasbench201 import TabularNas201
from bitfront.search.joint.decisions import ArchitectureDecisions
from bitfront.search.joint.model_based import ModelBased
from bitfront.search.joint.nsga2 import NondominatedSorting
from bitfront.search.joint.regularized_evolution import RegularizedGenomeEvolution
from bitfront.search.joint.sampler import RandomSampler
from bitfront.search.joint.tpe import ParzenEstimator

DEVICES = ("titan_rtx_32", "gold_6240", "fpga", "pixel3", "raspi4")  # GPU, server CPU, FPGA, phone, small board
SHARE = 0.99
BATCH = 5
RIVAL, OURS = "regularised evolution", "model-based"
MARKS = (20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000)  # queries at which the curves are kept


class Table:
    """One device: objectives of all networks, the true front and its hypervolumes."""

    def __init__(self, table: TabularNas201, device: str) -> None:
        self.device = device
        self.rows = {table.choices(index): index for index in range(len(table))}
        self.values = np.column_stack([100 - table.accuracy["cifar10"], table.latency[device]])
        self.described = encode_cells(table.cells)[:, 30:]  # counts of operations, on paths too, and depth
        self.decisions = ArchitectureDecisions(table.architecture)
        front = self.values[moocore.is_nondominated(self.values)]
        low, high = front.min(axis=0), front.max(axis=0)
        self.references = {"front": low + 1.1 * (high - low), "worst": self.values.max(axis=0)}
        self.true = {name: moocore.hypervolume(front, ref=at) for name, at in self.references.items()}

    def index(self, genomes: Sequence[Choices]) -> list[int]:
        """Rows."""
        return [self.rows[each] for each in genomes]

    def latency(self, genomes: Sequence[Choices]) -> np.ndarray:
        """What is known without a query: [n, 1]."""
        return self.values[self.index(genomes), 1:]

    def features(self, genomes: Sequence[Choices]) -> np.ndarray:
        """Graph features: [n, 11]."""
        return self.described[self.index(genomes)]

    def shares(self, found: np.ndarray) -> dict[str, float]:
        """Shares of the true hypervolumes that some points [n, 2] reach."""
        return {name: moocore.hypervolume(found, ref=at) / self.true[name] for name, at in self.references.items()}


METHODS: dict[str, tuple[int, Callable[[Table, int], Any]]] = {
    "random": (1000, lambda table, seed: RandomSampler(table.decisions, seed)),
    RIVAL: (1000, lambda table, seed: RegularizedGenomeEvolution(table.decisions, seed)),
    f"{RIVAL}, latency known": (
        1000,
        lambda table, seed: RegularizedGenomeEvolution(table.decisions, seed, table.latency),
    ),
    "NSGA-II": (1000, lambda table, seed: NondominatedSorting(table.decisions, seed)),
    "TPE": (500, lambda table, seed: ParzenEstimator(table.decisions, seed)),
    OURS: (500, lambda table, seed: ModelBased(table.decisions, seed)),
    f"{OURS}, latency known": (500, lambda table, seed: ModelBased(table.decisions, seed, table.latency)),
    f"{OURS}, latency and graph known": (
        500,
        lambda table, seed: ModelBased(table.decisions, seed, table.latency, table.features),
    ),
}
COMPARED = (
    (RIVAL, OURS),
    (RIVAL, "TPE"),
    (f"{RIVAL}, latency known", f"{OURS}, latency known"),
    (RIVAL, f"{OURS}, latency known"),
    (RIVAL, f"{OURS}, latency and graph known"),
)
"""Queries of the first over those of the second; the first three pairs know the same."""


def one(table: Table, method: str, seed: int) -> dict[str, Any]:
    """One run: after how many queries each hypervolume was reached, and the curve."""
    cap, make = METHODS[method]
    sampler = make(table, seed)
    front = np.zeros((0, 2))
    asked = 0
    reached: dict[str, int | None] = dict.fromkeys(table.references)
    curve: dict[str, dict[str, float]] = {}
    started = time.process_time()
    while asked < cap and not all(reached.values()):
        genomes = sampler.ask(BATCH)
        values = table.values[table.index(genomes)]
        sampler.tell(genomes, values)
        for row in values:
            asked += 1
            front = np.concatenate([front, row[None]])
            front = front[moocore.is_nondominated(front)]
            found = table.shares(front)
            for name, share in found.items():
                if reached[name] is None and share >= SHARE:
                    reached[name] = asked
            if asked in MARKS:
                curve[str(asked)] = found
    run = {"device": table.device, "method": method, "seed": seed, "cap": cap, "reached": reached, "curve": curve}
    return {**run, "end": table.shares(front), "queries": asked, "cpu_seconds": time.process_time() - started}


def collect(folder: Path, methods: Sequence[str], devices: Sequence[str], seeds: int) -> None:
    """Do the runs that the folder lacks, seed by seed, and write each method's file after every run.

    A run that reached everything before its cap is the same under a larger one; others are done again.
    """
    source = Path(os.environ.get("BITFRONT_REFERENCE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    read = TabularNas201.read(source)
    tables = [Table(read, device) for device in devices]
    for seed in range(seeds):
        for table in tables:
            for method in methods:
                path = folder / f"{method.replace(', ', '_').replace(' ', '_')}.json"
                runs = json.loads(path.read_text()) if path.exists() else []
                mine = [run for run in runs if (run["device"], run["seed"]) == (table.device, seed)]
                if not any(run["cap"] >= METHODS[method][0] or all(run["reached"].values()) for run in mine):
                    kept = [run for run in runs if run not in mine]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_text(path, json.dumps([*kept, one(table, method, seed)]) + "\n")


def needed(runs: Sequence[dict[str, Any]], reference: str) -> dict[str, Any]:
    """Median queries to the share, its 95 % bootstrap interval, and how many runs got there."""
    cap = METHODS[runs[0]["method"]][0]
    counts = np.array([run["reached"][reference] or 2 * cap for run in runs], dtype=float)
    draws = np.random.default_rng(0).integers(len(counts), size=(4000, len(counts)))
    low, high = np.percentile(np.median(counts[draws], axis=1), [2.5, 97.5])
    reached = int((counts <= cap).sum())
    return {"median": float(np.median(counts)), "low": low, "high": high, "cap": cap, "reached": reached}


def shown(found: dict[str, Any], seeds: int) -> str:
    """One cell of the table."""

    def capped(value: float) -> str:
        return f">{found['cap']}" if value > found["cap"] else f"{value:.0f}"

    return f"{capped(found['median'])} [{capped(found['low'])}, {capped(found['high'])}] {found['reached']}/{seeds}"


def told(runs: list[dict[str, Any]], reference: str) -> str:
    """The table of one reference point, as markdown."""
    devices = [each for each in DEVICES if any(run["device"] == each for run in runs)]
    lines = ["| method | " + " | ".join(devices) + " |", "|---" * (len(devices) + 1) + "|"]
    for method in METHODS:
        cells = []
        for device in devices:
            mine = [run for run in runs if run["device"] == device and run["method"] == method]
            cells.append(shown(needed(mine, reference), len(mine)) if mine else "")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    for rival, ours in COMPARED:
        cells = []
        for device in devices:
            both = [
                [run for run in runs if run["device"] == device and run["method"] == each] for each in (ours, rival)
            ]
            cells.append(ratio(*(needed(mine, reference) if mine else None for mine in both)))
        lines.append(f"| *{rival}* / *{ours}* | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratio(ours: dict[str, Any] | None, rival: dict[str, Any] | None) -> str:
    """How many times the queries; a median beyond the cap bounds it from one side."""
    if ours is None or rival is None or ours["median"] > ours["cap"]:
        return "-"
    beyond = rival["median"] > rival["cap"]
    return f"{'>' if beyond else ''}{min(rival['median'], rival['cap']) / ours['median']:.1f}"


def plot(runs: list[dict[str, Any]], path: Path) -> None:
    """Median share of the true hypervolume that is missing against queries, a panel per device."""
    from plotly.colors import qualitative
    from plotly.subplots import make_subplots

    figure = make_subplots(1, len(DEVICES), shared_yaxes=True, subplot_titles=DEVICES, horizontal_spacing=0.012)
    for column, device in enumerate(DEVICES, 1):
        for color, method in zip(qualitative.D3, METHODS, strict=False):
            mine = [run for run in runs if run["device"] == device and run["method"] == method]
            marks = [mark for mark in MARKS if mine and mark <= METHODS[method][0]]
            rows = [[1 - run["curve"].get(str(mark), run["end"])["front"] for mark in marks] for run in mine]
            line = {"color": color, "width": 3 if method.startswith(OURS) else 1.5}
            middle = np.median(rows, axis=0) if rows else []
            figure.add_scatter(
                x=marks, y=middle, name=method, line=line, showlegend=column == 1, legendgroup=method, row=1, col=column
            )
        figure.add_hline(y=1 - SHARE, line={"color": "black", "width": 1, "dash": "dot"}, row=1, col=column)
    figure.update_xaxes(type="log", title="accuracies queried", dtick="D2")
    figure.update_yaxes(type="log", dtick="D2")
    figure.update_yaxes(title="hypervolume missing, share of the true one", row=1, col=1)
    figure.update_layout(
        template="plotly_white",
        width=1500,
        height=460,
        margin={"l": 70, "r": 10, "t": 30, "b": 60},
        legend={"orientation": "h", "y": -0.2},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(path, include_plotlyjs=True, config={"displayModeBar": False})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--devices", nargs="*", default=list(DEVICES))
    parser.add_argument("--out", type=Path, default=Path("out/architecture_tabular"))
    parser.add_argument("--report", action="store_true", help="print what the folder holds, run nothing")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    if not arguments.report:
        collect(arguments.out, arguments.methods, arguments.devices, arguments.seeds)
    runs = [run for path in sorted(arguments.out.glob("*.json")) for run in json.loads(path.read_text())]
    for reference in ("front", "worst"):
        print(f"\nqueries to {SHARE:.0%} of the true hypervolume, reference point: {reference}\n")
        print(told(runs, reference))
    if arguments.plot:
        plot(runs, arguments.plot)


if __name__ == "__main__":
    main()
