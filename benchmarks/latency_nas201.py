"""Latency of the 15,625 NAS-Bench-201 networks on 23 devices: from ten measurements, and from a few hundred.

    python benchmarks/latency_nas201.py --seeds 10 --json out/latency_nas201.json

``left out``: each device in turn is new. The other 22 are known for all networks; ten networks are measured on it; the
Spearman correlation is over all networks that were not measured. ``HELP``: the same with the devices of the HELP paper
alone as known ones (Lee et al. 2021, arXiv:2106.08630: nine for training and four for validation, of which the data
have twelve) for those of its six test devices that the data have, and for the nearest device of two that they lack.
``sampled``: no other device; a predictor of the network's encoding from random measurements on the device itself.
``here``: the same for random convolutional networks that are built, encoded by a forward pass and timed right here.

Needs the reference data (``BITFRONT_REFERENCE_DATA``).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from bitfront.hw_models.architecture import ArchitecturePredictor, DeviceTransfer, encode, encode_cells
from bitfront.hw_models.gemm import Prediction
from scipy.stats import rankdata
from sklearn.linear_model import Ridge
from torch import nn

SAMPLES = 10
POOL = 1000  # random networks that the ten are chosen from; a user draws them without measuring
HELP_KNOWN = (
    *("1080ti_1", "1080ti_32", "1080ti_256", "silver_4114", "silver_4210r", "pixel3", "essential_ph_1", "samsung_s7"),
    *("titanx_1", "titanx_32", "titanx_256", "gold_6240"),  # used for validation there
)
HELP_TARGETS = {"fpga": 0.985, "pixel2": 0.802, "raspi4": 0.890}  # and what HELP reports
HELP_NEAREST = ("titan_rtx_32", "gold_6240")  # for titan_rtx_256 and gold_6226


def data() -> tuple[list[str], pd.DataFrame]:
    """Cells and milliseconds [networks x devices]."""
    folder = Path(os.environ.get("BITFRONT_REFERENCE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    frame = pd.read_csv(folder / "nasbench201_accuracy_latency.csv.gz")
    first = frame.columns.get_loc("1080ti_1")
    return list(frame["cellstr"]), frame.iloc[:, first:].astype(float)


def judged(truth: np.ndarray, predicted: np.ndarray, found: Prediction | None = None) -> dict[str, float]:
    """Spearman, error, and the share of intervals that hold."""
    ranks = np.corrcoef(rankdata(truth), rankdata(predicted))[0, 1]
    relative = np.abs(predicted / truth - 1)
    row = {"spearman": ranks, "mape": relative.mean(), "within_10": (relative < 0.1).mean()}
    if found is not None:
        row["coverage"] = ((found.low <= truth) & (truth <= found.high)).mean()
    return {name: float(value) for name, value in row.items()}


def ridge(known: np.ndarray, measured: np.ndarray, ms: np.ndarray, alpha: float) -> np.ndarray:
    """The three lines: ridge regression of log ms on the standardized log ms of the known devices."""
    logs = np.log(known)
    logs = (logs - logs.mean(axis=0)) / logs.std(axis=0)
    return np.exp(Ridge(alpha).fit(logs[measured], np.log(ms)).predict(logs))


def one(known: np.ndarray, transfer: DeviceTransfer, truth: np.ndarray, seed: int) -> dict[str, dict[str, float]]:
    """All methods on one device with one draw."""
    order = np.random.default_rng(seed).permutation(len(truth))
    drawn = {"random": order[:SAMPLES], "chosen": transfer.choose(SAMPLES, order[:POOL], seed)}
    rows = {}
    for how, measured in drawn.items():
        rest = np.setdiff1d(order, measured)
        found = transfer.predict(measured, truth[measured])
        kept = Prediction(found.ms[rest], found.low[rest], found.high[rest], found.coverage)
        rows[f"ours, {how}"] = judged(truth[rest], kept.ms, kept)
        for alpha in (0.1, 1.0, 10.0):
            guess = ridge(known, measured, truth[measured], alpha)
            rows[f"ridge {alpha:g}, {how}"] = judged(truth[rest], guess[rest])
    return rows


def left_out(
    devices: Sequence[str], known: Sequence[str] | None, cells: list[str], ms: pd.DataFrame, seeds: int
) -> list[dict[str, Any]]:
    """One row per device, method and seed; ``known=None`` means all other devices."""
    rows: list[dict[str, Any]] = []
    encodings = encode_cells(cells, pairs=True)
    for device in devices:
        others = ms[[name for name in known or ms.columns if name != device]].to_numpy()
        transfer = DeviceTransfer.of(others, encodings)
        for seed in range(seeds):
            for method, row in one(others, transfer, ms[device].to_numpy(), seed).items():
                rows.append({"device": device, "method": method, "seed": seed, **row})
    return rows


def sampled(devices: Sequence[str], counts: Sequence[int], cells: list[str], ms: pd.DataFrame, seeds: int) -> list[Any]:
    """One row per device, count of measurements and seed, on 3,000 other networks."""
    encodings = encode_cells(cells)
    rows = []
    for device in devices:
        truth = ms[device].to_numpy()
        for count in counts:
            for seed in range(seeds):
                order = np.random.default_rng(seed).permutation(len(truth))
                train, test = order[:count], order[count : count + 3000]
                started = time.perf_counter()
                found = ArchitecturePredictor.fit(encodings[train], truth[train]).predict(encodings[test])
                seconds = time.perf_counter() - started
                rows.append(
                    {"device": device, "count": count, "seed": seed, "seconds": seconds}
                    | judged(truth[test], found.ms, found)
                )
    return rows


def network(rng: np.random.Generator) -> tuple[nn.Module, torch.Tensor]:
    """A random convolutional network and its input: depth, widths, kernels, groups, resolution."""
    width, size = int(rng.choice([8, 16, 24, 32])), int(rng.choice([24, 32, 48, 64]))
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 2, 1), nn.ReLU()]
    for _ in range(int(rng.integers(2, 9))):
        kernel = int(rng.choice([1, 3, 5]))
        if rng.random() < 0.4:  # inverted bottleneck
            inner = width * int(rng.choice([2, 3, 4]))
            layers += [nn.Conv2d(width, inner, 1), nn.ReLU(), nn.Conv2d(inner, inner, kernel, 1, kernel // 2, 1, inner)]
            layers += [nn.ReLU(), nn.Conv2d(inner, width, 1)]
        else:
            wider = int(rng.choice([width, width, 2 * width]))
            layers += [nn.Conv2d(width, wider, kernel, 1, kernel // 2), nn.BatchNorm2d(wider), nn.ReLU()]
            width = wider
        if rng.random() < 0.3 and size > 8:
            layers.append(nn.MaxPool2d(2))
            size //= 2
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]
    return nn.Sequential(*layers, *head).eval(), torch.rand(1, 3, int(rng.choice([32, 64, 96])), 64)


def here(count: int, train: int, rounds: int = 15) -> dict[str, float]:
    """Predict the last of ``count`` random networks from the first ``train``; CPU time of one thread, median."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    networks = [network(rng) for _ in range(count)]
    encodings = np.stack([encode(model, (example,)).values for model, example in networks])
    times = np.empty((rounds, count))
    with torch.no_grad():
        for number in range(rounds):  # all networks in turn
            for index, (model, example) in enumerate(networks):
                model(example)
                started = time.thread_time()
                model(example)
                times[number, index] = 1e3 * (time.thread_time() - started)
    ms = np.median(times, axis=0)
    halves = np.median(times[::2], axis=0), np.median(times[1::2], axis=0)
    model = ArchitecturePredictor.fit(encodings[:train], ms[:train])
    found = model.predict(encodings[train:])
    chosen = model.next_samples(encodings[train:], 1)
    return {
        **judged(ms[train:], found.ms, found),
        "left_one_out_mape": model.error,
        "noise_mape": float(np.abs(halves[0] / halves[1] - 1).mean()),
        "fastest_ms": float(ms.min()),
        "slowest_ms": float(ms.max()),
        "most_uncertain": int(chosen[0]),
    }


def nas201(seeds: int = 10, counts: Sequence[int] = (100, 300), sampled_seeds: int = 2) -> dict[str, Any]:
    """All parts as one document; each is a list of rows."""
    cells, ms = data()
    started = time.perf_counter()
    document: dict[str, Any] = {"samples": SAMPLES, "pool": POOL, "seeds": seeds, "networks": len(ms)}
    document["left_out"] = left_out(list(ms.columns), None, cells, ms, seeds)
    document["help"] = left_out([*HELP_TARGETS, *HELP_NEAREST], HELP_KNOWN, cells, ms, seeds)
    document["sampled"] = sampled(list(ms.columns), counts, cells, ms, sampled_seeds)
    document["here"] = here(120, 80)
    document["seconds"] = time.perf_counter() - started
    return document


def told(document: dict[str, Any]) -> str:
    """The tables, as markdown."""
    everything = pd.DataFrame(document["left_out"])
    table = everything.pivot_table(index="device", columns="method", values="spearman")
    shown = table[["ridge 1, random", "ridge 1, chosen", "ours, random", "ours, chosen"]].copy()
    shown["worst seed of ours"] = everything[everything["method"] == "ours, chosen"].groupby("device").spearman.min()
    shown.loc["mean of 23"] = shown.mean()
    means = everything.groupby("method")[["spearman", "mape", "within_10", "coverage"]].mean()
    spread = everything.groupby(["method", "seed"]).spearman.mean().groupby("method").std()
    means["spread of the mean over seeds"] = spread
    helps = pd.DataFrame(document["help"]).pivot_table(index="device", columns="method", values="spearman")
    helps = helps[["ridge 1, random", "ours, random", "ours, chosen"]].assign(HELP=pd.Series(HELP_TARGETS))
    alone = pd.DataFrame(document["sampled"])
    alone = alone.groupby("count")[["spearman", "mape", "within_10", "coverage", "seconds"]].mean()
    parts = {
        "Spearman from ten measurements, each device left out": shown,
        "means over the devices": means,
        "known devices: HELP's": helps,
        "random measurements on the device itself, mean of 23": alone,
    }
    parts["random networks timed on this machine, 40 from 80"] = pd.DataFrame([document["here"]])
    return "\n\n".join(f"{title}\n\n{frame.round(4).to_string()}" for title, frame in parts.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    document = nas201(arguments.seeds)
    print(told(document))
    print(f"\n{document['seconds']:.0f} s")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
