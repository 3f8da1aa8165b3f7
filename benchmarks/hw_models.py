"""Is the sum of the kernels the time of the model? Prices against exported models, timed in onnxruntime.

    python benchmarks/hw_models.py efficientnet_lite0 minilm_l6 --mixed 6 --json out/hw_models.json

For each zoo model: price it twice from nothing (how well do two sessions agree?), export the uniform configurations and
random mixtures, time the exported models with one thread, interleaved, and compare with ``Prices.of``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import bitfront.zoo
import numpy as np
import pandas as pd
import torch
from bitfront.evaluators import calibrate
from bitfront.exporters import export
from bitfront.hw_models import price
from bitfront.space import Configuration, SearchSpace
from bitfront.task import Task

FORMATS = ("w4", "w8a8", "bf16", "fp32")


def mixtures(space: SearchSpace, count: int) -> dict[str, Configuration]:
    """Random configurations; tied sites share a format."""
    rng = np.random.default_rng(0)
    found = {}
    for number in range(count):
        choice = np.array([rng.choice(np.flatnonzero(row)) for row in space.allowed])
        for tie in space.tie_indices:
            choice[list(tie)] = choice[tie[0]]
        found[f"mixed {number}"] = space.configuration(choice)
    return found


def exported_ms(paths: dict[str, Path], example: object, rounds: int = 40) -> dict[str, float]:
    """Median time of one run of each file, in turn, without the copies of input and output.

    CPU time of the one thread: on a machine that runs other jobs too, a run of 10 ms is interrupted and one of a
    kernel (under 1 ms) mostly is not, so wall-clock times of the two could not be compared there.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    tensors = list(example.values()) if isinstance(example, dict) else [example]
    bindings = {}
    for name, path in paths.items():
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        for node, tensor in zip(session.get_inputs(), tensors, strict=True):
            binding.bind_ortvalue_input(node.name, ort.OrtValue.ortvalue_from_numpy(tensor.numpy()))
        for node in session.get_outputs():
            binding.bind_output(node.name)
        bindings[name] = (session, binding)
    samples: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(rounds):
        for name, (session, binding) in bindings.items():
            session.run_with_iobinding(binding)  # the other models have emptied the caches
            start = time.thread_time()
            session.run_with_iobinding(binding)
            samples[name].append(1e3 * (time.thread_time() - start))
    return {name: float(np.median(taken)) for name, taken in samples.items()}


def compare(name: str, mixed: int) -> dict[str, object]:
    entry = bitfront.zoo.load(name)
    inputs = entry.validation[0][0]
    example = {key: value[:1] for key, value in inputs.items()} if isinstance(inputs, dict) else inputs[:1]
    space = SearchSpace.from_model(entry.model, example, formats=FORMATS)
    task = Task(entry.model, calibration=entry.calibration[:1], validation=entry.validation, holdout=entry.holdout)
    calibration = calibrate(task, space)
    start = time.perf_counter()
    prices = price(space, metrics=["latency_ms"])
    seconds = time.perf_counter() - start
    again = price(space, metrics=["latency_ms"]).measured
    ratios = np.array([again.by_digest[row.digest].median_ms / row.median_ms for row in prices.measured])
    configurations = {**space.uniforms(), **mixtures(space, mixed)}
    with tempfile.TemporaryDirectory() as folder:
        paths = {label: Path(folder) / f"{label.replace(' ', '')}.onnx" for label in configurations}
        for label, configuration in configurations.items():
            export(entry.model, configuration, paths[label], target="onnx", example_inputs=example, space=space,
                   calibration=calibration)  # fmt: skip
        measured = exported_ms(paths, example)
    records = []
    for label, configuration in configurations.items():
        total = prices.of(configuration)["latency_ms"]
        records.append(
            {
                "configuration": label,
                "measured_ms": round(measured[label], 2),
                "sum_ms": round(total.value, 2),
                "low_ms": round(total.low, 2),
                "high_ms": round(total.high, 2),
                "inside": bool(total.low <= measured[label] <= total.high),
            }
        )
    frame = pd.DataFrame(records)
    error = (frame["sum_ms"] - frame["measured_ms"]).abs() / frame["measured_ms"]
    return {
        "model": name,
        "provenance": prices["latency_ms"].provenance,
        "seconds": round(seconds, 1),
        "kernels": len(prices.measured),
        "mape_percent": round(100 * float(error.mean()), 1),
        "spearman": round(float(frame["sum_ms"].corr(frame["measured_ms"], method="spearman")), 3),
        "session_to_session_percent": {
            "sum": round(
                100 * abs(sum(row.median_ms for row in again) / sum(r.median_ms for r in prices.measured) - 1), 1
            ),
            "median kernel": round(100 * float(np.median(np.abs(ratios - 1))), 1),
            "90th percentile": round(100 * float(np.quantile(np.abs(ratios - 1), 0.9)), 1),
        },
        "rows": records,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["efficientnet_lite0", "minilm_l6"])
    parser.add_argument("--mixed", type=int, default=6)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for name in arguments.models:
        result = compare(name, arguments.mixed)
        results.append(result)
        print(f"\n{name}: {result['provenance']}")
        print(pd.DataFrame(result["rows"]).to_string(index=False))
        print({key: value for key, value in result.items() if key not in ("rows", "provenance", "model")})
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
