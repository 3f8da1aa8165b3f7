"""The evaluator against naive ones: candidates per second, peak memory, and how throughput grows.

    python benchmarks/evaluator.py [MODEL ...] [--quick] [--candidates N] [--json FILE]

Candidates are what a search over {w2, w4, w8} measures: the uniform configurations, and points spread over the exact
front of average bits against weight error. One torch thread in each process.

Part 1: CPU seconds (of one thread; other processes may be busy) per candidate of ``FakeQuantEvaluator.evaluate_many``
on all candidates, of ``evaluate`` one by one, and of naive evaluators that copy the model, quantize all its weights,
run it and run the float model again; these choose the scales by least squared error, from the largest weight, or are
given them. Interleaved in one process; medians. Measurements must agree to the bit.
Part 2: peak resident memory of a fresh process that evaluates 16 candidates, against that of one that runs the float
model over the same data, plus the cache budget, plus 10 %. Both have loaded the Python code of ``torch.export`` (shown
on its own), which is there once whatever the model.
Part 3: candidates per second of 1 and 2 processes that share a folder, on 16, 64 and 256 candidates and one batch.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import multiprocessing
import platform
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import bitfront as bf
import numpy as np
import torch
from bitfront import zoo
from bitfront.evaluators import Calibration, FakeQuantEvaluator, Recipe, calibrate, output_tensor, per_sample
from bitfront.evaluators.replay import capture
from bitfront.formats import Format
from bitfront.measurement import Measurement

FORMATS = ("w2", "w4", "w8")
MODELS = ("efficientnet_lite0", "minilm_l6")
BUDGET = {"efficientnet_lite0": 600_000_000, "minilm_l6": 400_000_000}  # bytes, for part 2
Configurations = list[dict[str, str]]


def load(name: str, batches: int | None = None) -> tuple[bf.Task, bf.SearchSpace]:
    torch.set_num_threads(1)
    entry = zoo.load(name)
    quality = "kl" if entry.quality == "accuracy" else entry.quality
    task = bf.Task(
        entry.model,
        calibration=entry.calibration,
        validation=entry.validation[:batches],
        holdout=entry.holdout,
        loss=entry.loss,
        quality=quality,
        name=name,
    )
    return task, bf.SearchSpace.from_model(entry.model, task.calibration[0].piece(0, 2), formats=FORMATS)


def candidates(task: bf.Task, space: bf.SearchSpace, calibration: Calibration, count: int) -> Configurations:
    """The uniform configurations, and points evenly spread over the exact front."""
    error = np.zeros((len(space.sites), len(FORMATS)))
    for row, site in enumerate(space.sites):
        weight = task.model.get_parameter(site.parameter).data
        for column, name in enumerate(FORMATS):
            rounded = calibration.quantize(site, weight, Format.parse(name).weight).dequantize()
            error[row, column] = float((rounded - weight).double().square().sum())
    bits = bf.price(space, metrics=["avg_bits"])["avg_bits"].values
    front = bf.exact_front(error, bits, ties=space.tie_indices)
    uniforms = [found.to_dict() for found in space.uniforms().values()]
    picks = np.unique(np.linspace(1, len(front) - 2, count - len(uniforms)).astype(int))
    return uniforms + [space.configuration(front.choice.iloc[pick]).to_dict() for pick in picks]


def naive(
    task: bf.Task, space: bf.SearchSpace, configuration: dict[str, str], calibration: Calibration | None, scales: str
) -> Measurement:
    """Copy the model, quantize everything, run everything, the float model too."""
    model = copy.deepcopy(task.model)
    if calibration is None:
        chosen = [replace(site, formats=(configuration[site.name],)) for site in space.sites]
        calibration = calibrate(task, replace(space, sites=chosen), Recipe(weights=scales))
    for site in space.sites:
        parameter = model.get_parameter(site.parameter)
        target = Format.parse(configuration[site.name]).weight
        parameter.data = calibration.quantize(site, parameter.data, target).dequantize()
    values, started = [], time.perf_counter()
    with torch.no_grad():
        for batch in task.validation:
            reference = output_tensor(batch(task.model))
            values.append(per_sample(task, output_tensor(batch(model)), reference, batch.targets))
    seconds = time.perf_counter() - started
    return Measurement.of(task.metric, "validation", torch.cat(values).numpy(), seconds)


def timed(call: Any) -> tuple[Any, float]:
    gc.collect()
    started = time.process_time()
    found = call()
    return found, time.process_time() - started


def speed(name: str, counts: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    task, space = load(name)
    calibration = calibrate(task, space)
    rows = []
    for count in counts:
        chosen = candidates(task, space, calibration, count)
        evaluator = FakeQuantEvaluator(task, space, calibration, replay="always")
        picks = np.linspace(0, len(chosen) - 1, rounds).astype(int)
        seconds: dict[str, list[float]] = {key: [] for key in ("many", "one", "given", "minmax", "mse")}
        _, setup = timed(lambda each=evaluator, these=chosen: each.evaluate_many(these[:2]))
        for pick in picks:
            one = chosen[pick]
            expected, spent = timed(lambda one=one: naive(task, space, one, calibration, ""))
            seconds["given"].append(spent)
            seconds["minmax"].append(timed(lambda one=one: naive(task, space, one, None, "minmax"))[1])
            seconds["mse"].append(timed(lambda one=one: naive(task, space, one, None, "mse"))[1])
            found, spent = timed(lambda one=one, each=evaluator: each.evaluate(one))
            seconds["one"].append(spent)
            many, spent = timed(lambda each=evaluator, these=chosen: each.evaluate_many(these))
            seconds["many"].append(spent / len(chosen))
            assert found.values == expected.values == many[pick].values, "not the same to the bit"
        median = {key: statistics.median(each) for key, each in seconds.items()}
        ratios = {
            key: statistics.median(slow / fast for slow, fast in zip(seconds[key], seconds["many"], strict=True))
            for key in ("given", "minmax", "mse", "one")
        }
        rows.append(
            {"model": name, "candidates": len(chosen), "seconds": median, "ratios": ratios, "setup": setup,
             "not_replayed": evaluator.not_replayed, "rounds": rounds}
        )  # fmt: skip
        print(
            f"{name:20} {len(chosen):4} candidates: {median['many']:.3f} CPU s each; times as fast as naive with "
            f"scales by least error {ratios['mse']:.1f}, from the largest weight {ratios['minmax']:.1f}, given "
            f"{ratios['given']:.1f}; as one by one {ratios['one']:.2f}; capture and checks {setup:.1f} s",
            flush=True,
        )
    return rows


# memory --------------------------------------------------------------------------------------------------------------


def status(key: str) -> int:
    line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith(key))
    return int(line.split()[1]) * 1024


def memory_of(what: str, name: str, chosen: Configurations, calibration: Calibration) -> dict[str, int]:
    """Peak resident memory (bytes) of this process, which does nothing else."""
    task, space = load(name)
    before = status("VmRSS:")
    tiny = torch.nn.Linear(2, 2)
    capture(tiny, bf.task.Batch((torch.zeros(1, 2),)), [])
    code = status("VmRSS:") - before
    if what == "float":
        with torch.no_grad():
            kept = [output_tensor(batch(task.model)) for batch in task.validation for _ in range(2)]
        del kept
    else:
        evaluator = FakeQuantEvaluator(task, space, calibration, cache_bytes=BUDGET[name], replay="always")
        evaluator.evaluate_many(chosen)
    return {"peak": status("VmHWM:"), "code": code}


def memory(name: str) -> dict[str, Any]:
    task, space = load(name)
    calibration = calibrate(task, space, Recipe(weights="minmax"))
    chosen = candidates(task, space, calibration, 16)
    peaks = {}
    for what in ("float", "evaluator"):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found = pool.submit(memory_of, what, name, chosen, calibration).result()
            peaks[what], peaks["export_code"] = found["peak"], found["code"]
    limit = 1.1 * (peaks["float"] + BUDGET[name])
    row = {"model": name, "limit": limit, "budget": BUDGET[name], "holds": peaks["evaluator"] <= limit, **peaks}
    print(
        f"{name:20} float {peaks['float'] / 1e6:.0f} MB (torch.export {peaks['export_code'] / 1e6:.0f}), "
        f"budget {BUDGET[name] / 1e6:.0f} MB, evaluator "
        f"{peaks['evaluator'] / 1e6:.0f} MB; limit {limit / 1e6:.0f} MB: {'kept' if row['holds'] else 'BROKEN'}",
        flush=True,
    )
    return row


# throughput ----------------------------------------------------------------------------------------------------------


_READY: list[Any] = []  # the barrier at which the workers wait for each other


def wait_at(barrier: Any) -> None:
    _READY.append(barrier)


def work(name: str, shard: Configurations, calibration: Calibration, folder: str) -> tuple[float, float]:
    """Evaluate a shard; returns when it began and ended."""
    task, space = load(name, batches=1)
    evaluator = FakeQuantEvaluator(task, space, calibration, cache_folder=folder, replay="always")
    evaluator.replayer.runner("validation", 0)
    _READY[0].wait()
    started = time.time()
    evaluator.evaluate_many(shard)
    return started, time.time()


def throughput(name: str, counts: tuple[int, ...]) -> list[dict[str, Any]]:
    task, space = load(name)
    calibration = calibrate(task, space, Recipe(weights="minmax"))
    rows, context = [], multiprocessing.get_context("spawn")
    for count in counts:
        chosen = candidates(task, space, calibration, count)
        evaluator = FakeQuantEvaluator(task, space, calibration)
        ordered = [chosen[index] for index in evaluator.order(chosen)]
        for workers in (1, 2):
            cuts = np.linspace(0, len(ordered), workers + 1).astype(int)
            with (
                tempfile.TemporaryDirectory() as folder,
                ProcessPoolExecutor(workers, context, wait_at, (context.Barrier(workers),)) as pool,
            ):
                jobs = [pool.submit(work, name, ordered[low:high], calibration, folder) for low, high in pairwise(cuts)]
                spans = [job.result() for job in jobs]
            seconds = max(end for _, end in spans) - min(start for start, _ in spans)
            rows.append({"model": name, "candidates": len(ordered), "workers": workers, "rate": len(ordered) / seconds})
            print(
                f"{name:20} {len(ordered):4} candidates, {workers} workers: {rows[-1]['rate']:.2f} a second", flush=True
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--quick", action="store_true", help="16 candidates and few rounds")
    parser.add_argument("--parts", default="123", help="which parts, such as 13")
    parser.add_argument("--json", type=Path, default=Path("out/evaluator.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    counts, rounds = ((16,), 1) if arguments.quick else ((16, 64), 3)
    found: dict[str, list[Any]] = {"speed": [], "memory": [], "throughput": []}
    for name in arguments.models:
        if "1" in arguments.parts:
            found["speed"] += speed(name, counts, rounds)
        if "2" in arguments.parts:
            found["memory"].append(memory(name))
        if "3" in arguments.parts:
            found["throughput"] += throughput(name, (16,) if arguments.quick else (16, 64, 256))
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "command": " ".join(sys.argv),
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"about": about, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
