"""What workers cost: the share of a search's wall time that is evaluation, on Ray workers, and what their deaths cost.

    python benchmarks/workers.py [--workers 1 2] [--candidates N] [--rounds N] [--seconds S] [--sleep] [--json FILE]

A search of several rounds (each waits for the last outcome of the one before, as a search does) is driven with
evaluations that take about ``--seconds`` each. The share is

    busy seconds of all workers / (workers x wall seconds from the first round to the last outcome),

where the start of Ray and of the workers is left out and shown on its own: it is paid once a run, and their start shows
in the share of a short search only. Evaluations are real ones of digits_resnet20 on data repeated until they take that
long; with ``--sleep`` the metric sleeps as well, so that the overhead can be measured on a machine whose cores are busy
with other work: the dispatch still has to share them, evaluations no longer do. Then one search more in which one
candidate kills its worker every time: what that costs in seconds, and that the others are measured. Last, the
measurements of every executor and shard size must agree to the bit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bitfront as bf
import torch
from bitfront import zoo
from bitfront.evaluators import calibrate
from bitfront.search import LocalExecutor, RayExecutor, Work, bench_configurations
from bitfront.search.executor import EvaluatorRecipe
from bitfront.search.ray_cluster import ray_cluster

MODEL = "digits_resnet20"


class Metric:
    """Relative squared error of the logits; sleeps, and ends its process at the outputs of one candidate."""

    __name__ = "logits"

    def __init__(self, sleep: float = 0.0, victim: float | None = None) -> None:
        self.sleep, self.victim = sleep, victim

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The metric of every sample."""
        time.sleep(self.sleep)
        values = outputs.double().square().mean(1)
        if self.victim is not None and abs(float(values.sum()) - self.victim) < 1e-9:
            os.kill(os.getpid(), signal.SIGKILL)
        return values


def recipe_of(seconds: float, sleep: bool) -> tuple[EvaluatorRecipe, float]:
    """A recipe whose evaluations take about so many seconds, and what one took here."""
    entry = zoo.load(MODEL)
    batches = list(entry.validation)[:4]

    def made(count: int, quality: Any) -> EvaluatorRecipe:
        data = [batches[index % len(batches)] for index in range(count)]
        task = bf.Task(
            entry.model, calibration=list(entry.calibration)[:2], validation=data, holdout=data[:1], quality=quality
        )
        space = bf.SearchSpace.from_model(task.model, task.calibration[0], formats=["w2", "w3", "w4", "w8"])
        return EvaluatorRecipe(task, space, calibrate(task, space))

    if sleep:
        return made(4, Metric(seconds / 4)), seconds
    probe = made(4, Metric())
    evaluator = probe.build()
    evaluator.evaluate(probe.space.uniform("w4"))
    times = [evaluator.evaluate(probe.space.uniform(name)).seconds for name in ("w2", "w3", "w8")]
    count = max(4, round(4 * seconds / statistics.median(times)))
    return made(count, Metric()), statistics.median(times) * count / 4


def searched(executor: Any, recipe: EvaluatorRecipe, works: list[Work], rounds: int) -> dict[str, Any]:
    """Drive a search; seconds from the first round asked for to the last outcome, and the outcomes."""
    size = -(-len(works) // rounds)
    outcomes: list[Any] = []
    arrivals: list[float] = []

    def search() -> Any:
        for start in range(0, len(works), size):
            outcomes.extend((yield works[start : start + size]))

    started = time.perf_counter()
    executor.drive(search(), recipe, lambda outcome: arrivals.append(time.perf_counter()))
    return {
        "drive_seconds": time.perf_counter() - started,
        "last_outcome": arrivals[-1] - started,
        "first_outcome": arrivals[0] - started,
        "outcomes": outcomes,
    }


def share(executor: RayExecutor, found: dict[str, Any]) -> dict[str, float]:
    """The share of the wall time that was evaluation, with and without the start of the workers."""
    busy, workers = executor.report["busy_seconds"], executor.workers
    evaluations = executor.report["evaluations"]
    each = busy / evaluations
    warm = found["last_outcome"] - found["first_outcome"] + each  # from when the first worker began its first candidate
    return {
        "workers": workers,
        "evaluations": evaluations,
        "shards": executor.report["shards"],
        "seconds_each": each,
        "busy_seconds": busy,
        "start_seconds": found["first_outcome"] - each,
        "warm_seconds": warm,
        "share_warm": busy / (workers * warm),
        "share_with_start": busy / (workers * found["last_outcome"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--candidates", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--sleep", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe, seconds = recipe_of(options.seconds, options.sleep)
    works = [Work(each) for each in bench_configurations(recipe.space, options.candidates)]
    kind = "sleeping" if options.sleep else "computing"
    load = os.getloadavg()[0]
    print(f"{MODEL}, {len(works)} candidates in {options.rounds} rounds, about {seconds:.2f} s each, {kind};")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {load:.1f}\n")
    print("workers  shards  s each  start s  warm s  share warm  share with start")
    rows = []
    with ray_cluster(max(options.workers)):
        for workers in options.workers:
            executor = RayExecutor(workers)
            found = searched(executor, recipe, works, options.rounds)
            row = share(executor, found)
            rows.append(row)
            print(
                f"{workers:7d}  {row['shards']:6.0f}  {row['seconds_each']:6.2f}  {row['start_seconds']:7.1f}  "
                f"{row['warm_seconds']:6.1f}  {row['share_warm']:10.1%}  {row['share_with_start']:16.1%}"
            )
        deaths = with_deaths(recipe, works[:24], max(options.workers))
        print(
            f"\n24 candidates, one of which kills its worker: {deaths['deaths']:.0f} deaths, {deaths['measured']} "
            f"measured, {deaths['wall_seconds']:.1f} s; without it {deaths['wall_seconds_without']:.1f} s"
        )
        agree = agreeing(recipe, works[:8], options.workers)
        print(f"measurements of every executor and shard size agree to the bit: {agree}")
    if options.json:
        document = {
            "date": datetime.now(UTC).isoformat(),
            "machine": {"cores": os.cpu_count(), "load": load, "platform": platform.platform()},
            "options": {key: value for key, value in vars(options).items() if key != "json"},
            "rows": rows,
            "deaths": deaths,
            "agree": agree,
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def with_deaths(recipe: EvaluatorRecipe, works: list[Work], workers: int) -> dict[str, Any]:
    """The same search with and without a candidate that kills whoever evaluates it."""
    victim = works[len(works) // 2].configuration
    first = recipe.build().evaluate(victim, batches=1)
    task, metric = recipe.task, recipe.task.quality
    found: dict[str, Any] = {}
    for name, trap in (("wall_seconds_without", None), ("wall_seconds", sum(first.values))):
        task.quality = Metric(metric.sleep, trap)
        executor = RayExecutor(workers)
        searching = searched(executor, recipe, works, 1)
        found[name] = searching["last_outcome"]
    task.quality = metric
    measured = sum(outcome.measurement is not None for outcome in searching["outcomes"])
    return {**found, "measured": measured, "deaths": executor.report["deaths"]}


def agreeing(recipe: EvaluatorRecipe, works: list[Work], workers: list[int]) -> bool:
    """Whether all executors measure the same."""
    executors = [LocalExecutor(1), LocalExecutor(5), *(RayExecutor(each, shard_size=3) for each in workers)]
    values = [
        [outcome.measurement.values for outcome in searched(executor, recipe, works, 1)["outcomes"]]
        for executor in executors
    ]
    return all(each == values[0] for each in values)


if __name__ == "__main__":
    main()
