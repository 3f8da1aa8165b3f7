"""Artifacts of the targets torchao and compressed-tensors: size, error, quality, latency, memory while exporting.

    OMP_NUM_THREADS=1 python benchmarks/export_torch_targets.py --models minilm_l6 llama --json out/export_torch.json
    OMP_NUM_THREADS=1 python benchmarks/export_torch_targets.py --memory

Latency is that of one pass in the runtime, in another process, each pass in turn with one of the float model exported
the same way, so that the ratio holds on a busy machine. ``--memory`` exports a language model of 0.5 GB in shards.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import bitfront as bf
import torch
from bitfront import zoo
from bitfront.exporters import get
from bitfront.exporters.rules import takes
from bitfront.formats import Format

FORMATS = ["w4", "w4g32", "w8", "w8a8", "w8a8s", "bf16", "fp32"]


def llama(hidden: int = 256, layers: int = 4, vocabulary: int = 1024) -> Any:
    """A Llama with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=hidden * 11 // 4,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 64,
            num_key_value_heads=max(1, hidden // 128),
            max_position_embeddings=256,
            tie_word_embeddings=False,
            use_cache=False,
        )
    ).eval()


def task_of(name: str, samples: int) -> bf.Task:
    """A model of the zoo with its data, or the Llama on random tokens."""
    if name == "llama":
        generator = torch.Generator().manual_seed(1)
        batches = [
            {"input_ids": torch.randint(0, 1024, (8, 64), generator=generator)} for _ in range(max(2, samples // 8))
        ]
        return bf.Task(llama(), calibration=batches, validation=batches, holdout=batches, quality="kl")
    entry = zoo.load(name, calibration=samples, validation=samples, holdout=samples)
    return bf.Task(
        entry.model,
        calibration=entry.calibration,
        validation=entry.validation,
        holdout=entry.holdout,
        quality=entry.quality,
        loss=entry.loss,
    )


def configurations(space: bf.SearchSpace, target: str) -> dict[str, dict[str, str]]:
    """Uniform 8 bits, with rounded inputs, a mixed point (the larger half of the sites in 4 bits), and 4 bits."""
    writer = get(target)

    def first(site: Any, *names: str) -> str:
        return next(name for name in names if site.offers(name) and takes(writer, site, Format.parse(name)))

    groups = {name: tie.sites for tie in writer.fused(space) for name in tie.sites}
    sizes = {site.name: site.elements for site in space.sites}
    rank = sorted(space.names, key=lambda name: sum(sizes[each] for each in groups.get(name, (name,))))
    large = set(rank[len(rank) // 2 :])
    large = {name for name in space.names if set(groups.get(name, (name,))) & large}
    static = "w8a8" if target == "compressed-tensors" else "w8a8s"
    return {
        "w8": {site.name: first(site, "w8", "bf16") for site in space.sites},
        static: {site.name: first(site, static, "w8", "bf16") for site in space.sites},
        "mixed": {
            site.name: first(site, *(("w4g32", "w4") if site.name in large else ()), "w8", "bf16")
            for site in space.sites
        },
        "w4": {site.name: first(site, "w4", "w8", "bf16") for site in space.sites},
    }


def measure(name: str, target: str, samples: int, rounds: int, compiled: bool) -> list[dict[str, Any]]:
    """One row a configuration."""
    task = task_of(name, samples)
    example = task.validation[0].piece(0, 8)
    space = bf.SearchSpace.from_model(task.model, example, formats=FORMATS, ties="none")
    calibration = bf.calibrate(task, space)
    options = {"compile": True} if compiled else {}
    rows = []
    for label, configuration in configurations(space, target).items():
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            report = bf.export(
                task.model,
                configuration,
                Path(folder) / "artifact",
                target=target,
                example_inputs=example,
                calibration=calibration,
                space=space,
                task=task,
                samples=samples,
                rounds=rounds,
                against_float=True,
                options=options,
            )
            quality = report.quality
            assert quality is not None
            assert report.latency is not None
            assert report.float_latency is not None
            rows.append(
                {
                    "model": name,
                    "target": target,
                    "compiled": compiled,
                    "configuration": label,
                    "predicted_mb": report.predicted_bytes / 1e6,
                    "disk_mb": report.bytes_on_disk / 1e6,
                    "float_mb": report.float_bytes / 1e6,
                    "relative_error": report.relative_error,
                    "bound": report.bound,
                    "fake_quantized": quality.fake_quantized,
                    "artifact": quality.artifact,
                    "difference_low": quality.low,
                    "difference_high": quality.high,
                    "ms": report.latency.median_ms,
                    "float_ms": report.float_latency.median_ms,
                    "seconds": time.perf_counter() - started,
                }
            )
            print(line(rows[-1]), flush=True)
    return rows


def line(row: dict[str, Any]) -> str:
    """One line of the table."""
    return (
        f"| {row['model']} | {row['target']}{' compiled' if row['compiled'] else ''} | {row['configuration']} | "
        f"{row['disk_mb']:.2f} ({100 * (row['disk_mb'] / row['predicted_mb'] - 1):+.1f} %) | {row['float_mb']:.2f} | "
        f"{row['relative_error']:.1e} | {row['fake_quantized']:.4g} | {row['artifact']:.4g} | "
        f"{row['ms']:.1f} | {row['ms'] / row['float_ms']:.2f} |"
    )


def memory(target: str) -> dict[str, Any]:
    """Peak memory of writing a model of 0.5 GB in shards of 100 MB, above the model itself (no check back)."""
    from bitfront.evaluators import QuantizedModel
    from bitfront.exporters.protocol import ExportRequest
    from bitfront.exporters.scales import weight_scales
    from bitfront.space import Configuration
    from bitfront.task import Batch

    model = llama(hidden=1024, layers=10, vocabulary=2048)
    batch = Batch.of({"input_ids": torch.arange(32).reshape(2, 16)})
    space = bf.SearchSpace.from_model(model, batch, formats=["w4", "fp32"], ties="none")
    narrow = [name for name in space.names if "_proj" in name]
    configuration = Configuration.from_dict(dict.fromkeys(narrow, "w4"))
    calibration = weight_scales(model, space, configuration)
    request = ExportRequest(
        QuantizedModel(model, space, calibration), configuration, batch, options={"shard_bytes": 10_000_000}
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        artifact = get(target).export(request, Path(folder))
        seconds = time.perf_counter() - started
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "target": target,
        "float_mb": artifact.float_bytes / 1e6,
        "disk_mb": size / 1e6,
        "files": len(artifact.files),
        "peak_before_mb": before / 1e6,
        "peak_after_mb": after / 1e6,
        "largest_layer_mb": max(site.elements for site in space.sites) * 4 / 1e6,
        "seconds": seconds,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=["digits_resnet20", "efficientnet_lite0", "minilm_l6", "llama"])
    parser.add_argument("--targets", nargs="*", default=["torchao", "compressed-tensors"])
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="torchao through torch.compile")
    parser.add_argument("--memory", action="store_true", help="only the peak memory of a model of 0.5 GB")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for target in given.targets:
        if given.memory:
            rows.append(memory(target))
            print(rows[-1], flush=True)
            continue
        for name in given.models:
            if target == "compressed-tensors" and name not in ("minilm_l6", "llama"):
                continue
            rows += measure(name, target, given.samples, given.rounds, given.compile)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
