"""Foretold against measured latency of whole exported models on this CPU, and what makes the sum of the layers wrong.

    python benchmarks/latency_models.py efficientnet_lite0 minilm_l6 --json out/latency_models.json

For each zoo model: export the float model, a few configurations that the residual is fitted to, and 30 mixtures that
nothing is fitted to (files are kept in --folder, so that a second run goes on); time the kernels alone; time the
exports with one thread, interleaved with the float model; foretell the 30 by the sum of the layers, by the sum of all
parts, and with the learned factors. The 30 are timed twice, to show what two timings of one file differ by.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bitfront.zoo
import numpy as np
import torch
from bitfront.evaluators import Calibration, calibrate
from bitfront.exporters import export
from bitfront.hw_models import MeasuredTable, price
from bitfront.hw_models.network import (
    AdditivityReport,
    Export,
    MeasuredExport,
    Network,
    WholeModel,
    additivity,
    fit,
    measure_network,
    mixtures,
    time_exports,
)
from bitfront.search.whole_model import EXPORTS, designs, feeds_of
from bitfront.space import Configuration, SearchSpace
from bitfront.task import Batch, Task

FORMATS = ("w4", "w8a8", "bf16", "fp32")
HELD_OUT_SEED = 1


def written(
    folder: Path, task: Task, space: SearchSpace, calibration: Calibration, example: Batch,
    configurations: Mapping[str, Configuration],
) -> dict[str, Export]:  # fmt: skip
    """Export what is not in the folder yet; every file is checked back by the exporter."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for label, configuration in configurations.items():
        path = folder / f"{label.replace(' ', '-')}-{configuration.digest[:8]}.onnx"
        if not path.exists():
            export(task.model, configuration, path, target="onnx", example_inputs=example, calibration=calibration,
                   space=space)  # fmt: skip
        found[label] = Export(label, configuration.to_dict(), path)
    return found


def price_of(space: SearchSpace, network: Network, known: MeasuredTable) -> tuple[WholeModel, str]:
    table = price(space, metrics=["latency_ms"], tables=[known], network=network)["latency_ms"]
    assert isinstance(table.whole, WholeModel)
    return table.whole, table.provenance


def reported(
    space: SearchSpace, model: WholeModel, network: Network, held_out: list[MeasuredExport]
) -> AdditivityReport:
    exports = [*network.exports, *held_out]
    return additivity(
        model,
        [each.label for each in exports],
        np.stack([space.choice(each.formats) for each in exports]),
        np.array([each.ms for each in exports]),
        np.arange(len(exports)) < len(network.exports),
    )


def by_exports(report: AdditivityReport) -> dict[int, float]:
    """Held-out MAPE (percent) over the number of exports that the factors are learned from."""
    fitted = report.fitted
    parts, measured = report.parts[fitted], report.measured_ms[fitted]
    held, wanted = report.parts[~fitted], report.measured_ms[~fitted]
    found = {0: 100 * float(np.mean(np.abs(held.sum(axis=1) / wanted - 1)))}
    for count in range(2, len(parts) + 1):
        foretold = fit(parts[:count], measured[:count]).predict(held)[0]
        found[count] = 100 * float(np.mean(np.abs(foretold / wanted - 1)))
    return found


def compare(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    entry = bitfront.zoo.load(name)
    task = Task(entry.model, calibration=entry.calibration[:1], validation=entry.validation, holdout=entry.holdout)
    example = task.calibration[0].piece(0, 1)
    space = SearchSpace.from_model(entry.model, example, formats=FORMATS)
    calibration = calibrate(task, space)
    folder = arguments.folder / name
    seconds = {}
    start = time.perf_counter()
    trained = designs(space, arguments.exports)
    tested = mixtures(space, arguments.held_out, HELD_OUT_SEED)
    floats = written(folder, task, space, calibration, example, {"float": Configuration(())})["float"]
    files = written(folder, task, space, calibration, example, {**trained, **tested})
    seconds["export"] = time.perf_counter() - start

    start = time.perf_counter()
    kernels = price(space, metrics=["latency_ms"]).measured
    seconds["kernels"] = time.perf_counter() - start
    start = time.perf_counter()
    feeds = feeds_of(example)
    network = measure_network(space, floats.path, [files[label] for label in trained], feeds)
    seconds["whole models"] = time.perf_counter() - start
    measured = time_exports([files[label] for label in tested], floats.path, feeds)
    again = time_exports([files[label] for label in tested], floats.path, feeds)

    model, provenance = price_of(space, network, kernels)
    report = reported(space, model, network, measured)
    arguments.pictures.mkdir(parents=True, exist_ok=True)
    report.figure().update_layout(title=name).write_html(arguments.pictures / f"additivity_{name}.html")
    repeated = np.array([other.ms / one.ms for one, other in zip(measured, again, strict=True)])
    print(f"\n{name}: {provenance}\n{report.table.round(2).to_string()}\n{report.factors.round(3).to_string()}")
    result = {
        "model": name,
        "provenance": provenance,
        "held_out": report.summary(),
        "leave_one_out": report.summary(held_out=False),
        "mape_percent_by_exports": by_exports(report),
        "two_timings_differ_percent": 100 * float(np.mean(np.abs(repeated - 1))),
        "wall_over_thread": float(np.median([each.wall_ms / each.ms for each in measured])),
        "other_operators_ms": dict(network.operators.ms),
        "factors": report.factors.round(4).to_dict("index"),
        "seconds": {stage: round(spent, 1) for stage, spent in seconds.items()},
        "rows": report.table.round(4).reset_index(names="export").to_dict("records"),
    }
    for key in ("held_out", "leave_one_out", "mape_percent_by_exports", "two_timings_differ_percent", "seconds"):
        print(key, result[key])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["efficientnet_lite0", "minilm_l6"])
    parser.add_argument("--exports", type=int, default=EXPORTS, help="configurations that the factors are learned from")
    parser.add_argument("--held-out", type=int, default=30, help="mixtures that are foretold")
    parser.add_argument("--folder", type=Path, default=Path("out/latency_models"), help="where exported files are kept")
    parser.add_argument("--pictures", type=Path, default=Path("out/latency_models"))
    parser.add_argument("--json", type=Path, default=Path("out/latency_models.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kept = json.loads(arguments.json.read_text()) if arguments.json.exists() else []
    results = {result["model"]: result for result in kept}
    for name in arguments.models:
        results[name] = compare(name, arguments)
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(list(results.values()), indent=2) + "\n")


if __name__ == "__main__":
    main()
