"""Wall time, peak memory and measured quality of the quick start, for every zoo model.

    python benchmarks/quickstart.py [MODEL ...] [--json FILE]

Part 1: seconds and peak resident memory of each stage of a search over {w2, w4, w8} in one process on one torch thread.
Part 2: held-out quality of the best configuration at avg_bits 4, 5 and 6, next to uniform w4 and w8 and next to greedy
by weight MSE (the largest drop of squared error per bit first), all measured by the same evaluator.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bitfront as bf
import numpy as np
import torch
from bitfront import zoo
from bitfront.evaluators import FakeQuantEvaluator, calibrate
from bitfront.search import Silent

BUDGETS = (4.0, 5.0, 6.0)
FORMATS = ("w2", "w4", "w8")
EVALUATIONS = 12  # per budget, the three uniform configurations included


class Watch(Silent):
    """Seconds and peak resident memory (MB) of every stage."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Measure one stage."""
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak that VmHWM reports (Linux)
        started = time.perf_counter()
        yield lambda steps: None
        row = self.stages.setdefault(name, {"seconds": 0.0, "peak_mb": 0.0})
        row["seconds"] += time.perf_counter() - started
        row["peak_mb"] = max(row["peak_mb"], peak_mb())


def peak_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("no VmHWM in /proc/self/status")


def greedy(loss: np.ndarray, bits: np.ndarray, budget: float, ties: list[tuple[int, ...]]) -> np.ndarray:
    """Start with the coarsest formats; give the step with the largest drop of loss per bit while it fits."""
    group = list(range(len(loss)))
    for tie in ties:
        for site in tie:
            group[site] = tie[0]
    members = {head: [site for site in range(len(loss)) if group[site] == head] for head in set(group)}
    choice = dict.fromkeys(members, 0)

    def step(head: int) -> tuple[float, float]:
        now, sites = choice[head], members[head]
        gain = sum(loss[site, now] - loss[site, now + 1] for site in sites)
        return gain, sum(bits[site, now + 1] - bits[site, now] for site in sites)

    spent = sum(bits[site, 0] for site in range(len(loss)))
    open_heads = set(members)
    while open_heads:
        head = max(open_heads, key=lambda each: step(each)[0] / step(each)[1])
        cost = step(head)[1]
        if spent + cost > budget * (1 + 1e-12):
            open_heads.remove(head)
            continue
        choice[head] += 1
        spent += cost
        if choice[head] == loss.shape[1] - 1:
            open_heads.remove(head)
    return np.array([choice[group[site]] for site in range(len(loss))])


def measure(name: str) -> dict[str, Any]:
    """The three searches of one model, greedy beside them, and what every stage took."""
    watch = Watch()
    with watch.stage("load", 1):
        entry = zoo.load(name)
        task = bf.Task(
            entry.model,
            calibration=entry.calibration,
            validation=entry.validation,
            holdout=entry.holdout,
            loss=entry.loss,
            quality="kl"
            if entry.quality == "accuracy"
            else entry.quality,  # an error rate saturates long before 8 bits
            name=name,
        )
        space = bf.SearchSpace.from_model(entry.model, task.calibration[0].piece(0, 2), formats=FORMATS)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for budget in BUDGETS:
            result = bf.run(
                task,
                space,
                objectives=["quality", "avg_bits"],
                constraints={"avg_bits": budget},
                evaluations=EVALUATIONS,
                executor="local",
                store=f"sqlite:///{folder}/store.db",
                progress=watch,
            )
            best = result.choose().point
            rows.append({"budget": budget, "best": best.holdout.value, "low": best.holdout.low,
                         "high": best.holdout.high, "avg_bits": best.prices["avg_bits"].value,
                         "is_uniform": best.baseline})  # fmt: skip
    uniform = {point.baseline: point.holdout.value for point in result.points if point.baseline}
    evaluator = FakeQuantEvaluator(task, space, calibrate(task, space))
    mse = bf.sensitivity(task, space, proxy="weight_mse").values
    bits = bf.price(space, metrics=["avg_bits"])["avg_bits"].values
    for row in rows:
        choice = greedy(mse, bits, row["budget"], space.tie_indices)
        row["greedy_mse"] = evaluator.evaluate(space.configuration(choice), "holdout").value
    return {
        "model": name,
        "metric": task.metric,
        "sites": len(space.sites),
        "float": result.float_model["holdout"].value,
        "uniform": uniform,
        "rows": rows,
        "stages": watch.stages,
        "proxy": result.report["proxies"],
    }


def quality_table(found: list[dict[str, Any]]) -> list[str]:
    """Held-out quality of the best configuration at every budget, as Markdown."""
    lines = [
        "| model | metric (held out) | float | uniform w4 | uniform w8 | avg_bits | best | 95 % | greedy by MSE |",
        "|---|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for each in found:
        for row in each["rows"]:
            mark = f" (uniform {row['is_uniform']})" if row["is_uniform"] else ""
            lines.append(
                f"| {each['model']} | {each['metric']} | {each['float']:.4g} | {each['uniform']['w4']:.4g} "
                f"| {each['uniform']['w8']:.4g} | {row['budget']:g} | {row['best']:.4g}{mark} "
                f"| {row['low']:.4g} … {row['high']:.4g} | {row['greedy_mse']:.4g} |"
            )
    return lines


def stage_table(found: list[dict[str, Any]]) -> list[str]:
    """Seconds of every stage that any model went through, in their order, and the largest peak, as Markdown."""
    names = list(dict.fromkeys(name for each in found for name in each["stages"]))
    lines = [f"| model | sites | {' | '.join(names)} | peak MB |", "|---|" + "---:|" * (len(names) + 2)]
    for each in found:
        stages = each["stages"]
        seconds = " | ".join(f"{stages[name]['seconds']:.1f}" if name in stages else "" for name in names)
        peak = max(stage["peak_mb"] for stage in stages.values())
        lines.append(f"| {each['model']} | {each['sites']} | {seconds} | {peak:.0f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=zoo.names())
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    for name in arguments.models:
        started = time.perf_counter()
        found.append(measure(name))
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        if arguments.json:  # after every model: what is measured is kept
            about = {
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
            }
            arguments.json.write_text(json.dumps({"about": about, "models": found}, indent=1) + "\n")
    print("\n".join(["", *quality_table(found), "", *stage_table(found)]))


if __name__ == "__main__":
    main()
