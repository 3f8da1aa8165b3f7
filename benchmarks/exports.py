"""What every export target makes of three points of a front: size, quality, latency, checked back in its runtime.

The points of the exact front (``sqnr`` against size) of the formats that a variant of a target takes: the one nearest
the size of uniform int8, the smallest, and the one halfway between; and uniform int8 itself (``w8a8`` where the target
takes it, else 8-bit weights), once where it is one of the three. Every export is checked back. Then float and all
points are loaded in ONE process of the runtime and timed in turn, on one thread, by the CPU time of that process: other
work on the machine then changes little, and a ratio is that of passes a few milliseconds apart.

    OMP_NUM_THREADS=1 python benchmarks/exports.py --models digits_resnet20 minilm_l6 --variants onnx torchao
    python benchmarks/exports.py --table        # print what out/exports.json holds

What ``--out`` holds already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bitfront import Calibration, Configuration, SearchSpace, Task, calibrate, exact_front, sensitivity, zoo
from bitfront.errors import BitfrontError
from bitfront.evaluators import QuantizedModel
from bitfront.exporters import ExportReport, ExportRequest, export, get, names, restricted
from bitfront.exporters.verify_run import run_apart
from bitfront.formats import Format
from bitfront.task import Batch
from export_torch_targets import task_of

SAMPLES, BATCH = 32, 2


@dataclass(frozen=True)
class Variant:
    """A target with options, and what a search for it is offered."""

    target: str
    formats: tuple[str, ...]
    models: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)


_NETS = ("digits_resnet20", "efficientnet_lite0", "minilm_l6")
_TEXT = ("minilm_l6", "llama")
VARIANTS = {
    "onnx": Variant("onnx", ("w4", "w8", "w4a8", "w8a8", "fp32"), _NETS),
    "onnx, packed": Variant("onnx", ("w4", "w4g32", "w8", "fp32"), ("minilm_l6",), {"weights": "packed"}),
    "onnx, int8 groups": Variant("onnx", ("w4", "w8", "w4g32a8g32", "w8g32a8g32", "fp32"), ("minilm_l6",)),
    "openvino": Variant("openvino", ("w4", "w8", "w4a8", "w8a8", "fp32"), _NETS),
    "torchao": Variant("torchao", ("w4", "w8", "w4a8s", "w8a8s", "bf16", "fp32"), _NETS),
    "compressed-tensors": Variant("compressed-tensors", ("w4", "w4g32", "w8", "w8a8", "bf16", "fp32"), _TEXT),
    "executorch": Variant("executorch", ("w4", "w8", "w8a8", "fp32"), _NETS),
}


def main() -> None:
    """Measure what is missing, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=[*_NETS, "llama"])
    parser.add_argument(
        "--variants", nargs="+", default=[each for each in VARIANTS if VARIANTS[each].target in names()]
    )
    parser.add_argument("--rounds", type=int, default=100, help="timed passes of each artifact")
    parser.add_argument("--seconds", type=float, default=20.0, help="most time for them")
    parser.add_argument("--out", type=Path, default=Path("out/exports.json"))
    parser.add_argument("--table", action="store_true", help="only print")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = json.loads(arguments.out.read_text()) if arguments.out.is_file() else []
    known = {(row["model"], row["variant"]) for row in rows}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for model in [] if arguments.table else arguments.models:
        wanted = [each for each in arguments.variants if model in VARIANTS[each].models and (model, each) not in known]
        task = judged_by_distance(model) if wanted else None
        for variant in wanted:
            assert task is not None
            rows += measured(model, task, variant, arguments.rounds, arguments.seconds)
            arguments.out.write_text(json.dumps(rows, indent=1) + "\n")
    print("\n".join(table(rows)))


def judged_by_distance(model: str) -> Task:
    """A model with its data; a classifier is judged by the KL divergence to float, since few samples flip a label."""
    if model == "llama":
        return task_of(model, SAMPLES)
    entry = zoo.load(model, calibration=SAMPLES, validation=SAMPLES, holdout=SAMPLES)
    quality = "kl" if entry.quality == "accuracy" else entry.quality
    return Task(entry.model, calibration=entry.calibration, validation=entry.validation, holdout=entry.holdout,
                loss=entry.loss, quality=quality)  # fmt: skip


def measured(model: str, task: Task, name: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each point; a point that is refused has the reason."""
    variant, started = VARIANTS[name], time.perf_counter()
    space = SearchSpace.from_model(task.model, task.calibration[0], formats=list(variant.formats))
    space = restricted(space, get(variant.target)).space
    calibration = calibrate(task, space)
    rows, kept = [], []
    with tempfile.TemporaryDirectory() as place:
        for label, configuration in points(task, space, calibration).items():
            row: dict[str, Any] = {"model": model, "variant": name, "point": label, "date": time.strftime("%Y-%m-%d")}
            row["formats"] = dict(Counter(configuration.values()))
            path = Path(place) / label.replace(" ", "_") / f"model.{variant.target}"
            try:
                report = one(task, space, calibration, configuration, variant, path)
            except BitfrontError as cause:
                rows.append(row | {"refused": str(cause)})
                continue
            rows.append(row | of_report(report))
            kept.append((rows[-1], configuration, path))
        if kept:
            times(task, space, calibration, variant, kept, Path(place), rounds, seconds)
    for row in rows:
        row["seconds"] = time.perf_counter() - started
        print(line(row), flush=True)
    return rows


def points(task: Task, space: SearchSpace, calibration: Calibration) -> dict[str, Configuration]:
    """Uniform int8 and three points of the exact front; weights alone only where inputs cannot be rounded too."""
    loss = sensitivity(task, space, proxy="sqnr", calibration=calibration).values
    cost = np.array(
        [[Format.parse(name).stored_bits(site.weight_shape, site.channel_axis) for name in space.formats]
         for site in space.sites], dtype=float,
    )  # fmt: skip
    allowed = space.allowed & ~_has_twin(space)
    front = exact_front(np.where(allowed, loss, 0.0), cost, ties=space.tie_indices, allowed=allowed)
    eight = np.array([_first(space, row, "w8a8", "w8a8s", "w8a8d", "w8g32a8g32", "w8") for row in allowed])
    sizes = front["cost"].to_numpy()
    base = cost[np.arange(len(eight)), eight].sum()
    rows = {
        "size of int8": int(np.abs(sizes - base).argmin()),
        "between": int(np.abs(sizes - (base + sizes.min()) / 2).argmin()),
        "smallest": int(sizes.argmin()),
    }
    found = {label: space.configuration(front["choice"].iloc[row]) for label, row in rows.items()}
    uniform = space.configuration(eight)
    return {"uniform int8": uniform, **{label: each for label, each in found.items() if each != uniform}}


def _has_twin(space: SearchSpace) -> np.ndarray:
    """Whether a format of weights alone has one with rounded inputs at the same site, which is as small."""
    found = np.zeros_like(space.allowed)
    parsed = [Format.parse(name) for name in space.formats]
    for column, format in enumerate(parsed):
        twins = [
            each
            for each, other in enumerate(parsed)
            if not format.is_wide
            and format.activation is None
            and other.activation is not None
            and other.weight.bits == format.weight.bits
        ]
        found[:, column] = space.allowed[:, twins].any(axis=1)
    return found


def _first(space: SearchSpace, allowed: np.ndarray, *names: str) -> int:
    """The first of some formats that a site may take; else its widest."""
    known = [space.formats.index(name) for name in names if name in space.formats]
    wide = [number for number, name in enumerate(space.formats) if Format.parse(name).is_wide]
    return next(column for column in [*known, *wide] if allowed[column])


def one(
    task: Task, space: SearchSpace, calibration: Calibration, configuration: Configuration, variant: Variant, path: Path
) -> ExportReport:
    """One checked export; timed later, beside the others."""
    return export(
        task.model,
        configuration,
        path,
        variant.target,
        example_inputs=example(task),
        calibration=calibration,
        space=space,
        task=task,
        samples=SAMPLES,
        rounds=0,
        options=variant.options,
    )


def example(task: Task) -> Batch:
    """What is exported with, and timed on."""
    return task.validation[0].piece(0, BATCH)


def of_report(report: ExportReport) -> dict[str, Any]:
    """What a row takes from the report of an export."""
    assert report.quality is not None
    return {
        "predicted_mb": report.predicted_bytes / 1e6,
        "tensors_mb": None if report.tensor_bytes is None else report.tensor_bytes / 1e6,
        "disk_mb": report.bytes_on_disk / 1e6,
        "float_mb": report.float_bytes / 1e6,
        "size_error": report.size_error,
        "relative_error": report.relative_error,
        "bound": report.bound,
        "metric": report.quality.metric,
        "fake_quantized": report.quality.fake_quantized,
        "artifact": report.quality.artifact,
        "difference": [report.quality.low, report.quality.high],
        "samples": report.quality.samples,
        "integer_sites": len(report.integer_kernels),
        "runtime": f"{report.runtime} {report.version}",
    }


def times(
    task: Task,
    space: SearchSpace,
    calibration: Calibration,
    variant: Variant,
    kept: list[tuple[dict[str, Any], Configuration, Path]],
    place: Path,
    rounds: int,
    seconds: float,
) -> None:
    """Latency of all points beside float, pass by pass in turn in one process; ratios are medians over the rounds."""
    writer = get(variant.target)
    request = ExportRequest(
        QuantizedModel(task.model, space, calibration), Configuration(()), example(task), options=variant.options
    )
    plain = place / "float" / f"model.{variant.target}"
    (plain if writer.layout == "folder" else plain.parent).mkdir(parents=True)
    requests = [replace(request, name=plain.name)]
    writer.export(requests[0], plain if writer.layout == "folder" else plain.parent)
    requests += [replace(request, configuration=each, name=path.name) for _, each, path in kept]
    artifacts, runtime = [], None
    for number, (each, path) in enumerate(zip(requests, [plain, *(path for *_, path in kept)], strict=True)):
        own = place / f"runtime{number}"
        own.mkdir()
        runtime = writer.runtime(each, path if writer.layout == "folder" else path.parent, own)
        assert runtime is not None
        artifacts.append((path, runtime.settings))
    assert runtime is not None
    answer = run_apart(
        runtime, artifacts, [example(task)], place / "process", rounds=rounds, seconds=seconds, clock="cpu"
    )
    passes = np.array(answer.milliseconds)
    rows = [row for row, *_ in kept]
    eight = next((number for number, row in enumerate(rows, 1) if row["point"] == "uniform int8"), None)
    for number, row in enumerate(rows, 1):
        row["ms"], row["float_ms"] = float(np.median(passes[number])), float(np.median(passes[0]))
        row["to_float"] = float(np.median(passes[number] / passes[0]))
        row["to_int8"] = float(np.median(passes[number] / passes[eight])) if eight is not None else None
        row["passes"] = passes.shape[1]


HEADS = (
    "model", "target", "point", "formats", "predicted MB", "tensors MB (off)", "on disk MB", "error (bound)",
    "fake-quantized", "artifact", "ms", "/ float", "/ int8",
)  # fmt: skip


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The table in Markdown."""
    return [f"| {' | '.join(HEADS)} |", "|---|---|---|---" + "|---:" * 9 + "|", *map(line, rows)]


def line(row: dict[str, Any]) -> str:
    """One line of it."""
    formats = ", ".join(f"{count} {name}" for name, count in sorted(row["formats"].items()))
    head = f"| {row['model']} | {row['variant']} | {row['point']} | {formats} |"
    if "refused" in row:
        return f"{head} refused: {row['refused'][:200]} |"
    eight = "–" if row["to_int8"] is None else f"{row['to_int8']:.2f}"
    tensors = "–" if row["tensors_mb"] is None else f"{row['tensors_mb']:.3f} ({100 * row['size_error']:+.1f} %)"
    return (
        f"{head} {row['predicted_mb']:.3f} | {tensors} | "
        f"{row['disk_mb']:.3f} | {row['relative_error']:.1e} ({row['bound']:.0e}) | {row['fake_quantized']:.4g} | "
        f"{row['artifact']:.4g} | {row['ms']:.2f} | {row['to_float']:.2f} | {eight} |"
    )


if __name__ == "__main__":
    main()
