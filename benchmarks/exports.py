"""What every export target makes of three points of a front: size, quality, latency, checked back in its runtime.

The points: uniform ``w8``, the point of the exact front (``sqnr`` against size) in the middle between its ends, and its
smallest one. Each is exported for each target with the calibration that a search would use; the artifact is loaded in
another process, run on validation data, and timed in turn with the float model exported the same way. The ratio to
uniform int8 is that of the two ratios to float, which were measured minutes apart on the same machine.

    python benchmarks/exports.py --models digits_resnet20 minilm_l6 --targets onnx torchao --out exports.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bitfront import Calibration, Configuration, SearchSpace, Task, calibrate, exact_front, sensitivity, zoo
from bitfront.errors import BitfrontError
from bitfront.exporters import ExportReport, certificate_path, export, get, restricted

FORMATS = ["w4", "w8", "bf16"]
SIZES = {"calibration": 32, "validation": 64, "holdout": 32}


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["digits_resnet20", "efficientnet_lite0", "minilm_l6"])
    parser.add_argument("--targets", nargs="+", default=["onnx", "openvino", "torchao", "compressed-tensors"])
    parser.add_argument("--rounds", type=int, default=20, help="timed passes")
    parser.add_argument("--out", type=Path, default=Path("exports.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    print("| model | target | point | formats | predicted MB | on disk MB | off | relative error | bound | "
          "fake-quantized | artifact | ms | / float | / int8 |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for name in arguments.models:
        entry = zoo.load(name, **SIZES)
        task = Task(entry.model, calibration=entry.calibration, validation=entry.validation, holdout=entry.holdout,
                    loss=entry.loss, quality=entry.quality)  # fmt: skip
        space = SearchSpace.from_model(entry.model, entry.example_inputs, formats=FORMATS)
        for target in arguments.targets:
            rows += measured(name, task, space, target, arguments.rounds)
            arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


def measured(name: str, task: Task, space: SearchSpace, target: str, rounds: int) -> list[dict[str, Any]]:
    """A row for each point; a point that the target refuses has the reason."""
    try:
        smaller = restricted(space, get(target)).space
    except BitfrontError as cause:
        return [shown({"model": name, "target": target, "point": "all", "refused": str(cause)})]
    calibration = calibrate(task, smaller)
    rows: list[dict[str, Any]] = []
    for label, configuration in points(task, smaller, calibration).items():
        row: dict[str, Any] = {"model": name, "target": target, "point": label}
        row["formats"] = {each: list(configuration.values()).count(each) for each in smaller.formats}
        try:
            with tempfile.TemporaryDirectory() as folder:
                report = one(task, smaller, calibration, configuration, target, rounds, Path(folder))
        except BitfrontError as cause:
            rows.append(shown({**row, "refused": str(cause)}))
            continue
        assert report.latency is not None
        assert report.float_latency is not None
        assert report.quality is not None
        ratio = report.latency.median_ms / report.float_latency.median_ms
        row |= {
            "predicted_mb": report.predicted_bytes / 1e6,
            "disk_mb": report.bytes_on_disk / 1e6,
            "off": report.bytes_on_disk / report.predicted_bytes - 1,
            "float_mb": report.float_bytes / 1e6,
            "relative_error": report.relative_error,
            "bound": report.bound,
            "metric": report.quality.metric,
            "fake_quantized": report.quality.fake_quantized,
            "artifact": report.quality.artifact,
            "difference": [report.quality.low, report.quality.high],
            "samples": report.quality.samples,
            "batch": report.latency.batch,
            "latency_ms": report.latency.median_ms,
            "spread_ms": [report.latency.low_ms, report.latency.high_ms],
            "float_ms": report.float_latency.median_ms,
            "to_float": ratio,
            "seconds": report.seconds,
        }
        base = next((each["to_float"] for each in rows if each["point"] == "uniform w8" and "to_float" in each), ratio)
        rows.append(shown({**row, "to_int8": ratio / base}))
    return rows


def points(task: Task, space: SearchSpace, calibration: Calibration) -> dict[str, Configuration]:
    """Uniform int8, and the middle and the smallest point of the exact front."""
    loss = sensitivity(task, space, proxy="sqnr", calibration=calibration).values
    cost = np.array([
        [site.elements * 32 if name == "fp32" else bits(site, name) for name in space.formats] for site in space.sites
    ], dtype=float)  # fmt: skip
    front = exact_front(np.where(space.allowed, loss, 0.0), cost, ties=space.tie_indices, allowed=space.allowed)
    costs = front["cost"].to_numpy()
    middle = int(np.abs(costs - (costs.min() + costs.max()) / 2).argmin())
    chosen = {"middle": middle, "smallest": int(costs.argmin())}
    found = {label: space.configuration(front["choice"].iloc[row]) for label, row in chosen.items()}
    return {"uniform w8": space.uniform("w8"), **found}


def bits(site: Any, name: str) -> int:
    """Bits on disk of the weight of a site."""
    from bitfront.formats import Format

    return Format.parse(name).stored_bits(site.weight_shape, site.channel_axis)


def one(
    task: Task,
    space: SearchSpace,
    calibration: Calibration,
    configuration: Configuration,
    target: str,
    rounds: int,
    folder: Path,
) -> ExportReport:
    """One checked export."""
    path = folder / f"model.{target}"
    report = export(
        task.model,
        configuration,
        path,
        target,
        example_inputs=task.calibration[0].piece(0, 2),
        calibration=calibration,
        space=space,
        task=task,
        samples=64,
        rounds=rounds,
        against_float=True,
    )
    assert certificate_path(path, get(target).layout).is_file()
    return report


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """Print a row of the table."""
    head = f"| {row['model']} | {row['target']} | {row['point']} |"
    if "refused" in row:
        print(f"{head} refused: {row['refused'][:160]} |", flush=True)
        return row
    formats = ", ".join(f"{count} {name}" for name, count in row["formats"].items() if count)
    print(
        f"{head} {formats} | {row['predicted_mb']:.3f} | {row['disk_mb']:.3f} | {100 * row['off']:+.1f} % | "
        f"{row['relative_error']:.1e} | {row['bound']:.1e} | {row['fake_quantized']:.5g} | {row['artifact']:.5g} | "
        f"{row['latency_ms']:.2f} | {row['to_float']:.2f} | {row['to_int8']:.2f} |",
        flush=True,
    )
    return row


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"{time.perf_counter() - started:.0f} s")
