"""The one-layer table with activation reuse against a plain loop: times as fast, and the same numbers.

    python benchmarks/one_layer.py [MODEL ...] [--samples N] [--formats w2,w4,w8] [--every K] [--json FILE]

The table is that of ``measured_kl``: every site in every format alone, on calibration samples. The plain loop quantizes
the weight of one site with the calibrated scales, runs the whole network on the batches of the data, compares with
outputs of the float model that were computed once, and puts the weight back. It runs padding as it is in the data; the
table leaves out what a mask makes it possible to leave out. CPU seconds of one thread, whatever else the machine does;
the first ``torch.export`` of a process, which loads its code, is done before and reported on its own.

The plain loop is timed in pieces between which the table with reuse is not interrupted: before and after it, half of
the rows each. ``--every K`` times it on every Kth site only and scales up; numbers are compared on these.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bitfront as bf
import numpy as np
import torch
from bitfront import zoo
from bitfront.evaluators import Calibration, Recipe, calibrate, output_tensor, per_sample
from bitfront.evaluators.replay import capture
from bitfront.formats import Format
from bitfront.proxies.measured import MeasuredKL
from bitfront.proxies.measured_sample import seeded_sample
from bitfront.proxies.measured_sites import sampled_task

MODELS = ("digits_resnet20", "minilm_l6", "efficientnet_lite0")


def load(name: str, formats: list[str]) -> tuple[bf.Task, bf.SearchSpace]:
    entry = zoo.load(name)
    task = bf.Task(
        entry.model,
        calibration=entry.calibration,
        validation=entry.validation,
        holdout=entry.holdout,
        quality="kl" if entry.quality == "accuracy" else entry.quality,
        name=name,
    )
    return task, bf.SearchSpace.from_model(entry.model, task.calibration[0].piece(0, 2), formats=formats)


def plain(
    task: bf.Task, space: bf.SearchSpace, calibration: Calibration, samples: int, rows: list[int]
) -> dict[tuple[int, int], float]:
    """The table by whole runs; some rows."""
    batches = seeded_sample(task.calibration, samples, len(task.calibration[0]), 0, "plain")
    judge = sampled_task(task, batches, task.quality)
    found: dict[tuple[int, int], float] = {}
    with torch.no_grad():
        references = [output_tensor(batch(task.model)) for batch in batches]
        for row in rows:
            parameter = task.model.get_parameter(space.sites[row].parameter)
            original = parameter.data
            for column, name in enumerate(space.formats):
                parameter.data = calibration.quantize(
                    space.sites[row], original, Format.parse(name).weight
                ).dequantize()
                values = [
                    per_sample(judge, output_tensor(batch(task.model)), reference, batch.targets)
                    for batch, reference in zip(batches, references, strict=True)
                ]
                each = torch.cat(values)
                found[row, column] = float((0.5 * each**2 if task.quality == "relative_error" else each).mean())
                parameter.data = original
    return found


def timed(call: Any) -> tuple[Any, float]:
    started = time.process_time()
    found = call()
    return found, time.process_time() - started


def compare(name: str, samples: int, formats: list[str], every: int, import_seconds: float) -> dict[str, Any]:
    task, space = load(name, formats)
    calibration = calibrate(task, space, Recipe(weights="minmax"))
    rows = list(range(0, len(space.sites), every))
    task.calibration[0](task.model)  # warm
    first, before = timed(lambda: plain(task, space, calibration, samples, rows[::2]))
    table, fast = timed(lambda: MeasuredKL(samples).score(task, space, calibration, seed=0, advance=None))
    second, after = timed(lambda: plain(task, space, calibration, samples, rows[1::2]))
    slow = (before + after) * len(space.sites) / len(rows)
    expected = {**first, **second}
    difference = max(abs(table.values[cell] - each) / max(abs(each), 1e-12) for cell, each in expected.items())
    assert difference < 1e-4, "not the same numbers"
    row = {
        "model": name, "sites": len(space.sites), "formats": list(space.formats), "samples": samples, "every": every,
        "plain_cpu_seconds": slow, "reuse_cpu_seconds": fast, "ratio": slow / fast,
        "largest_relative_difference": difference, "export_import_cpu_seconds": import_seconds,
    }  # fmt: skip
    print(
        f"{name:20} {len(space.sites)} sites x {len(formats)} formats, {samples} samples: plain {slow:.1f} s, "
        f"with reuse {fast:.1f} s, {slow / fast:.2f} times as fast; largest relative difference {difference:.1e}",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--formats", default="w2,w4,w8")
    parser.add_argument("--every", type=int, default=1, help="plain loop on every Kth site only")
    parser.add_argument("--json", type=Path, default=Path("out/one_layer.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tiny = bf.task.Batch((torch.zeros(1, 2),))
    _, seconds = timed(lambda: capture(torch.nn.Linear(2, 2), tiny, []))
    print(f"first torch.export of the process: {seconds:.1f} s")
    formats = arguments.formats.split(",")
    rows = [compare(name, arguments.samples, formats, arguments.every, seconds) for name in arguments.models]
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "numpy": np.__version__,
        "command": " ".join(sys.argv),
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
