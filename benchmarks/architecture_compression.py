"""What structured compression finds in zoo models, and what each choice costs and saves, without training.

    python benchmarks/architecture_compression.py [MODEL ...] [--every N] [--architectures N] [--few] [--json FILE]

Part 1: the dimensions that ``compress`` finds, and what it leaves out.
Part 2: every single choice (one dimension off its largest value, all others at it): quality, megabytes of float32
parameters and multiply-accumulates of one sample, the last two as shares of the original.
Part 3: random architectures, whose dimensions leave their largest value with probability 0.05, 0.1, 0.2 or 0.4, built
with each way of recovery, the same architectures for all.
Quality is that of the zoo entry (KL to the original, relative error, or error on labels) on validation data, which
``compress`` never sees. Seconds are wall time on one thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import bitfront as bf
import numpy as np
import torch
from bitfront import zoo
from bitfront.architecture import ArchitectureSpace, Choices
from bitfront.errors import UnsupportedModel
from bitfront.evaluators import run_float
from bitfront.search.families.compression import CompressionFamily, compress
from bitfront.task import Batch
from bitfront.zoo.digits_resnet20 import recipe
from bitfront.zoo.resnet import ResNet
from bitfront.zoo.weights_cache import cached

MODELS = ("digits_resnet20", "digits_resnet20_bn", "minilm_l6", "efficientnet_lite0")
SAMPLES = {  # calibration, validation
    "digits_resnet20": (256, 399),
    "digits_resnet20_bn": (256, 399),
    "minilm_l6": (64, 64),
    "efficientnet_lite0": (16, 16),
}
RECOVERY: dict[str, dict[str, Any]] = {
    "no data": {"calibration": None},
    "data, recover=()": {"recover": ()},
    "statistics": {"recover": ("statistics",)},
    "reconstruct": {"recover": ("reconstruct",)},
    "both (default)": {},
    "both, importance=activation": {"importance": "activation"},
}
FEW = ("no data", "both (default)")
CHANCES = (0.05, 0.1, 0.2, 0.4)


class Judge:
    """Quality, size and operations of built networks against the original."""

    def __init__(self, entry: zoo.ZooEntry) -> None:
        self.entry = entry
        self.quality = "error" if entry.quality == "accuracy" else entry.quality
        self.batches = [Batch.of(each) for each in entry.validation]
        with torch.no_grad():
            self.original = [run_float(entry.model, each, "validation") for each in self.batches]
        self.size = self.size_mb(entry.model)
        self.macs = self.total_macs(entry.model)
        self.float_quality = self.value(entry.model)

    def value(self, model: torch.nn.Module) -> float:
        """Mean quality on the validation data; lower is better."""
        total = count = 0.0
        for batch, reference in zip(self.batches, self.original, strict=True):
            with torch.no_grad():
                output = run_float(model, batch, "validation")
            if self.quality == "error":
                assert batch.targets is not None
                total += float((output.argmax(-1) != batch.targets).sum())
            elif self.quality == "kl":
                whole = torch.nn.functional.kl_div(output.log_softmax(-1), reference.log_softmax(-1), log_target=True,
                                                   reduction="sum")  # fmt: skip
                total += float(whole)
            else:
                total += float(((output - reference).flatten(1).norm(dim=1) / reference.flatten(1).norm(dim=1)).sum())
            count += len(batch)
        return total / count

    @staticmethod
    def size_mb(model: torch.nn.Module) -> float:
        """Bytes of the parameters / 10^6."""
        return sum(each.numel() * each.element_size() for each in model.parameters()) / 1e6

    def total_macs(self, model: torch.nn.Module) -> int:
        """Multiply-accumulates of one sample, over all sites."""
        space = bf.SearchSpace.from_model(model, self.entry.example_inputs, formats=["w8"])
        return sum(site.macs for site in space.sites)

    def row(self, model: torch.nn.Module) -> dict[str, float]:
        """Quality, and the other two as shares of the original."""
        return {
            "quality": self.value(model),
            "size": self.size_mb(model) / self.size,
            "macs": self.total_macs(model) / self.macs,
        }


def singles(family: CompressionFamily) -> list[tuple[str, str, Any, Choices]]:
    """(kind, dimension, value, choices) for every value that changes the original."""
    largest = family.architecture.largest()
    found = []
    for each in family.architecture.dimensions:
        for value in each.values[:-1]:
            values = family.architecture.choices({**largest, each.name: value})
            found.append((each.kind, each.name, value, values))
    return found


def drawn(space: ArchitectureSpace, count: int) -> list[tuple[float, Choices]]:
    """Random architectures, a quarter at each chance."""
    draw = np.random.default_rng(0)
    found = []
    for number in range(count):
        chance = CHANCES[number * len(CHANCES) // count]
        indices = [
            int(draw.integers(len(each.values) - 1)) if len(each.values) > 1 and draw.random() < chance
            else len(each.values) - 1
            for each in space.dimensions
        ]  # fmt: skip
        found.append((chance, space.from_indices(indices)))
    return found


def with_batch_norm() -> torch.nn.Module:
    """The weights of digits_resnet20 before batch normalization was folded into the convolutions."""

    def missing(_: torch.nn.Module) -> None:
        raise SystemExit("run with digits_resnet20 first: its weights are not in the cache")

    return cached(ResNet(), recipe(), missing)


def measure(name: str, every: int, architectures: int, few: bool) -> dict[str, Any]:
    calibration, validation = SAMPLES[name]
    entry = zoo.load(name.removesuffix("_bn"), calibration=calibration, validation=validation, holdout=16)
    if name.endswith("_bn"):
        entry = replace(entry, model=with_batch_norm())
    judge = Judge(entry)
    start = time.perf_counter()
    family = compress(entry.model, entry.example_inputs, calibration=entry.calibration)
    report: dict[str, Any] = {
        "model": name, "quality": judge.quality, "calibration": calibration, "validation": validation,
        "float": judge.float_quality, "size_mb": judge.size, "macs": judge.macs,
        "compress_seconds": time.perf_counter() - start, "left_out": family.left_out,
        "dimensions": dict(Counter(each.kind for each in family.architecture.dimensions)),
    }  # fmt: skip
    print(f"\n{name}: {report['dimensions']}, {report['compress_seconds']:.1f} s; original {judge.quality} "
          f"{judge.float_quality:.4f}, {judge.size:.2f} MB, {judge.macs / 1e6:.1f} M MACs")  # fmt: skip
    for dimension, why in family.left_out.items():
        print(f"  left out {dimension}: {why}")
    report["singles"] = single_choices(family, judge, singles(family)[::every])
    report["random"] = recoveries(entry, judge, drawn(family.architecture, architectures), few)
    return report


def single_choices(family: CompressionFamily, judge: Judge, cases: list[Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for kind, dimension, value, choices in cases:
        start = time.perf_counter()
        built = family.build(choices)
        seconds = time.perf_counter() - start
        rows.append({"kind": kind, "dimension": dimension, "value": value, "seconds": seconds, **judge.row(built)})
    print(
        f"{'kind':6} {'value':>5} {'n':>3}  {'quality: best':>13} {'median':>8} {'worst':>8}   median: size x  MACs x"
    )
    for kind, value in dict.fromkeys((row["kind"], row["value"]) for row in rows):
        part = [row for row in rows if (row["kind"], row["value"]) == (kind, value)]
        quality = sorted(row["quality"] for row in part)
        print(f"{kind:6} {value!s:>5} {len(part):3}  {quality[0]:13.4f} {median(quality):8.4f} {quality[-1]:8.4f}   "
              f"{median(row['size'] for row in part):14.3f}  {median(row['macs'] for row in part):6.3f}")  # fmt: skip
    return rows


def recoveries(
    entry: zoo.ZooEntry, judge: Judge, cases: list[tuple[float, Choices]], few: bool
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    ways = {name: way for name, way in RECOVERY.items() if not few or name in FEW}
    if entry.loss is not None and not few:
        ways["both, importance=taylor"] = {"importance": "taylor", "loss": entry.loss}
    print(f"{'random architectures: median':32}", *(f"{f'chance {chance}':>12}" for chance in CHANCES))
    for way, arguments in ways.items():
        family = compress(entry.model, entry.example_inputs, **{"calibration": entry.calibration, **arguments})
        part = []
        for number, (chance, choices) in enumerate(cases):
            start = time.perf_counter()
            try:
                built = family.build(choices)
            except UnsupportedModel as refusal:
                print(f"  refused {number}: {refusal}")
                continue
            seconds = time.perf_counter() - start
            part.append({"way": way, "number": number, "chance": chance, "seconds": seconds, **judge.row(built)})
        for key in ("quality",) if rows else ("size", "macs", "quality"):
            values = [median(row[key] for row in part if row["chance"] == chance) for chance in CHANCES]
            print(f"{way if key == 'quality' else f'{key} x':32}", *(f"{value:12.4f}" for value in values), flush=True)
        print(f"{'':32} {median(row['seconds'] for row in part):.2f} s a build")
        rows += part
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--every", type=int, default=1, help="of the single choices, every so many")
    parser.add_argument("--architectures", type=int, default=20, help="random ones; a multiple of four")
    parser.add_argument("--few", action="store_true", help=f"only these ways of recovery: {', '.join(FEW)}")
    parser.add_argument("--json", type=Path, help="write all rows here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    date = datetime.now(UTC).date().isoformat()
    print(f"{platform.machine()}, one thread, torch {torch.__version__}, {date}")
    reports = [measure(name, arguments.every, arguments.architectures, arguments.few) for name in arguments.models]
    if arguments.json:
        arguments.json.write_text(json.dumps({"date": date, "torch": torch.__version__, "models": reports}, indent=1))


if __name__ == "__main__":
    main()
