"""Peak memory while a large model is exported: resident memory above what the model itself takes.

A Llama with random weights, ``w4`` in every projection. The targets compute and write one layer after the other, so the
peak should stay far below the size of the model. Resident memory is read every 5 ms in a thread, since the kernel's
high-water mark would be that of making the model. Each target runs in a process of its own; nothing is checked back.

    OMP_NUM_THREADS=1 python benchmarks/export_memory.py --hidden 1024 --layers 14
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from bitfront import SearchSpace
from bitfront.evaluators import QuantizedModel
from bitfront.exporters import ExportRequest, get
from bitfront.exporters.scales import weight_scales
from bitfront.space import Configuration
from bitfront.task import Batch
from export_torch_targets import llama

OPTIONS = {"onnx": {"external_bytes": 0}, "compressed-tensors": {"shard_bytes": 20_000_000}}


class Peak:
    """The most resident memory that a thread sees inside a ``with``; ``before`` is what there was at its begin."""

    def __enter__(self) -> Peak:
        self._process, self._stop = psutil.Process(), threading.Event()
        self.before = self.most = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.most = max(self.most, self._process.memory_info().rss)


def measured(target: str, hidden: int, layers: int) -> dict[str, Any]:
    """Export once; sizes in MB."""
    model = llama(hidden=hidden, layers=layers, vocabulary=2048)
    batch = Batch.of({"input_ids": torch.arange(32).reshape(2, 16)})
    space = SearchSpace.from_model(model, batch, formats=["w4", "fp32"], ties="none")
    configuration = Configuration.from_dict({name: "w4" for name in space.names if "_proj" in name})
    quantized = QuantizedModel(model, space, weight_scales(model, space, configuration))
    request = ExportRequest(quantized, configuration, batch, name="model", options=OPTIONS.get(target, {}))
    gc.collect()
    with tempfile.TemporaryDirectory() as folder, Peak() as peak:
        started = time.perf_counter()
        artifact = get(target).export(request, Path(folder))
        seconds = time.perf_counter() - started
        size = sum((Path(folder) / name).stat().st_size for name in artifact.files)
    return {
        "target": target,
        "float_mb": artifact.float_bytes / 1e6,
        "disk_mb": size / 1e6,
        "before_mb": peak.before / 1e6,
        "above_mb": (peak.most - peak.before) / 1e6,
        "largest_layer_mb": max(site.elements for site in space.sites) * 4 / 1e6,
        "seconds": seconds,
    }


def main() -> None:
    """Each target in a process of its own; a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", default=["onnx", "compressed-tensors"])
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=14)
    parser.add_argument("--out", type=Path, default=Path("out/export_memory.json"))
    parser.add_argument("--here", action="store_true", help="one target, in this process; print JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.here:
        print(json.dumps(measured(arguments.targets[0], arguments.hidden, arguments.layers)))
        return
    rows = []
    print("| target | float MB | on disk MB | largest layer MB | memory before MB | peak above it MB | s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for target in arguments.targets:
        command = [sys.executable, __file__, "--here", "--targets", target]
        command += ["--hidden", str(arguments.hidden), "--layers", str(arguments.layers)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(done.stdout.strip().splitlines()[-1])
        rows.append(row)
        print(
            f"| {target} | {row['float_mb']:.0f} | {row['disk_mb']:.0f} | {row['largest_layer_mb']:.1f} | "
            f"{row['before_mb']:.0f} | {row['above_mb']:.0f} | {row['seconds']:.0f} |",
            flush=True,
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
