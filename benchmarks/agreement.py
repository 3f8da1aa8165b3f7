"""How far exported models are from the fake-quantized ones that were measured, in onnxruntime on the same inputs.

``python benchmarks/agreement.py`` exports uniform configurations of zoo models, runs them on validation samples, and
prints the largest difference of any output, the relative error, the share of positions with the same arg-max, the noise
of the model itself under last-bit differences, and size on disk against its price. JSON goes to ``out/agreement.json``.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bitfront as bf
import torch
from bitfront import zoo
from bitfront.evaluators import QuantizedModel
from bitfront.exporters import export
from bitfront.exporters.comparison import relative_error
from bitfront.exporters.onnx_runtime import Loaded, version
from bitfront.hw_models import price

FORMATS = ("w8", "w4", "w4g32", "w8a8", "w4a8")
MODELS = ("efficientnet_lite0", "minilm_l6")


def main() -> None:
    """Export, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    parser.add_argument("--samples", type=int, default=32, help="of each split")
    parser.add_argument("--out", type=Path, default=Path("out/agreement.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for model in arguments.models for row in agreement(model, arguments.formats, arguments.samples)]
    found = {
        "machine": platform.processor() or platform.machine(),
        "onnxruntime": version(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "rows": rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")


def agreement(name: str, formats: list[str], samples: int) -> list[dict[str, Any]]:
    """One row per uniform configuration; a layer that cannot take the format keeps its weight bits in plain form."""
    entry = zoo.load(name, calibration=samples, validation=samples, holdout=samples)
    task = bf.Task(entry.model, calibration=entry.calibration, validation=entry.validation, holdout=entry.holdout)
    print(f"\n{name}: {'format':8} {'largest':>9} {'relative':>9} {'noise':>9} {'arg-max':>8} {'MB':>7} {'priced':>7}")
    rows = []
    for format_name in formats:
        offered = sorted({format_name, f"w{bf.Format.parse(format_name).weight_bits}"})
        space = bf.SearchSpace.from_model(entry.model, entry.example_inputs, formats=offered, ties="none")
        calibration = bf.calibrate(task, space)
        quantized = QuantizedModel(entry.model, space, calibration)
        configuration = space.uniform(format_name)
        size = price(space, metrics=["size_mb"]).of(configuration)["size_mb"].value
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            report = export(
                entry.model,
                configuration,
                path,
                example_inputs=task.validation[0],
                calibration=calibration,
                space=space,
            )
            loaded = Loaded(path)
            with quantized.applied(configuration) as model, torch.no_grad():
                pairs = [(_first(batch(model)), _first(loaded.run(batch))) for batch in task.validation]
        row = {
            "model": name,
            "format": format_name,
            **_differences(pairs),
            "noise": report.noise,
            "megabytes": report.bytes_on_disk / 1e6,
            "priced_megabytes": size,
            "integer_kernels": len(report.integer_kernels),
            "sites_in_format": sum(chosen == format_name for chosen in configuration.values()),
            "seconds": time.perf_counter() - started,
        }
        rows.append(row)
        print(
            f"{name}: {format_name:8} {row['largest']:9.2e} {row['relative']:9.2e} {row['noise']:9.2e} "
            f"{row['same_arg_max']:8.1%} {row['megabytes']:7.2f} {row['priced_megabytes']:7.2f}",
            flush=True,
        )
    return rows


def _differences(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    """Over the samples of all batches: [samples, ...] each."""
    wanted, given = (torch.cat([each.flatten(0, -2) for each in side]) for side in zip(*pairs, strict=True))
    return {
        "samples": len(wanted),
        "largest": float((given - wanted).abs().max()),
        "relative": relative_error(given, wanted),
        "same_arg_max": float((given.argmax(-1) == wanted.argmax(-1)).double().mean()),
    }


def _first(output: Any) -> torch.Tensor:
    """The first output tensor."""
    from torch.utils import _pytree

    return next(leaf for leaf in _pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor))


if __name__ == "__main__":
    main()
