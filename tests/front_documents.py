"""A realistic ``front.json`` without running anything: 52 sites like EfficientNet-lite0's, 40 points.

Load it with ``runpy.run_path`` (tests are no package).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

FORMATS = ["w2", "w4", "w8", "bf16"]
BITS = {"w2": 2, "w4": 4, "w8": 8, "bf16": 16}
# (expansion, input channels, output channels, kernel, repeats, side of the output)
STAGES = [
    (1, 32, 16, 3, 1, 112),
    (6, 16, 24, 3, 2, 56),
    (6, 24, 40, 5, 2, 28),
    (6, 40, 80, 3, 3, 14),
    (6, 80, 112, 5, 3, 14),
    (6, 112, 192, 5, 4, 7),
    (6, 192, 320, 3, 1, 7),
]


def _site(name: str, kind: str, shape: list[int], side: int) -> dict[str, Any]:
    elements = math.prod(shape)
    return {
        "name": name,
        "kind": kind,
        "weight_shape": shape,
        "elements": elements,
        "macs": elements * side * side,
        "formats": list(FORMATS),
    }


def sites() -> list[dict[str, Any]]:
    """The layers of EfficientNet-lite0 in the order of the forward pass."""
    found, block = [_site("_conv_stem", "conv2d", [32, 3, 3, 3], 112)], 0
    for expansion, entering, leaving, kernel, repeats, side in STAGES:
        for repeat in range(repeats):
            width = (entering if repeat == 0 else leaving) * expansion
            source = entering if repeat == 0 else leaving
            if expansion > 1:
                found.append(_site(f"_blocks.{block}._expand_conv", "conv2d", [width, source, 1, 1], side))
            found.append(_site(f"_blocks.{block}._depthwise_conv", "conv2d", [width, 1, kernel, kernel], side))
            found.append(_site(f"_blocks.{block}._project_conv", "conv2d", [leaving, width, 1, 1], side))
            block += 1
    found.append(_site("_conv_head", "conv2d", [1280, 320, 1, 1], 7))
    found.append(_site("_fc", "linear", [1000, 1280], 1))
    return found


def front_document(seed: int = 0, points: int = 40, name: str = "efficientnet-lite0") -> dict[str, Any]:
    """The document of a finished run; the same for the same arguments.

    Four uniform points, greedy and random mixtures between them; the survivors have a held-out measurement.
    """
    generator = np.random.default_rng(seed)
    layers = sites()
    elements = np.array([site["elements"] for site in layers], dtype=float)
    bits = np.array([BITS[name] for name in FORMATS], dtype=float)
    noise = 4.0 ** (-bits + 2)
    loss = 0.25 * generator.lognormal(0, 1.2, len(layers))[:, None] * noise[None, :]
    loss[3, 3] = 0.0
    size = elements[:, None] * bits[None, :] / 8 / 1e6
    overhead = np.array([1.0, 0.92, 0.75, 1.1])
    latency = (np.array([site["macs"] for site in layers]) / 1e7)[:, None] * overhead[None, :] * 0.9 + 0.02

    choices: list[tuple[np.ndarray[Any, Any], str, str | None]] = [
        (np.full(len(layers), column), "uniform", fmt) for column, fmt in enumerate(FORMATS)
    ]
    ratios = np.geomspace(1e-4, 3.0, points - 4 - 8)
    choices += [(np.argmin(loss + ratio * size, axis=1), "exact_front", None) for ratio in ratios]
    mixed = generator.choice(4, (points - len(choices), len(layers)), p=[0.1, 0.4, 0.4, 0.1])
    choices += [(choice, "random", None) for choice in mixed]

    rows = np.arange(len(layers))
    document_points = []
    for index, (choice, origin, baseline) in enumerate(choices):
        predicted = float(loss[rows, choice].sum())
        value = predicted * float(generator.lognormal(0, 0.18)) * (1 + 0.2 * min(predicted, 5))
        ms, mb = float(latency[rows, choice].sum()), float(size[rows, choice].sum()) + 0.17
        average = float((elements * bits[choice]).sum() / elements.sum())
        holdout = None
        if baseline is not None or index % 3 == 0:
            held = value * float(generator.lognormal(0, 0.05))
            holdout = _measurement(held, 0.14, 256, "holdout")
        document_points.append(
            {
                "id": f"p{index:03d}",
                "config": {site["name"]: FORMATS[column] for site, column in zip(layers, choice, strict=True)},
                "predicted": {"quality": predicted},
                "measured": {"validation": _measurement(value, 0.12, 512, "validation"), "holdout": holdout},
                "prices": {
                    "latency_ms": {"value": ms, "low": ms * 0.97, "high": ms * 1.04, "source": "measured"},
                    "size_mb": {"value": mb, "low": mb, "high": mb, "source": "exact"},
                    "avg_bits": {"value": average, "low": average, "high": average, "source": "exact"},
                },
                "baseline": baseline,
                "origin": origin,
                "pareto": False,
                "feasible": mb <= 3.0,
            }
        )
    for point in document_points:
        point["pareto"] = not any(_dominates(other, point) for other in document_points)
    candidates = [point for point in document_points if point["feasible"] and point["measured"]["holdout"]]
    best = min(candidates, key=lambda point: point["measured"]["holdout"]["value"])
    return {
        "schema_version": 1,
        "name": name,
        "created": "2026-03-14T09:26:53+00:00",
        "bitfront": "0.1.0",
        "job": {
            "name": name,
            "model": {"zoo": "efficientnet_lite0"},
            "space": {"formats": FORMATS, "ties": "auto"},
            "objectives": ["quality", "latency_ms", "size_mb"],
            "constraints": {"size_mb": 3.0},
            "search": {"evaluations": points, "seconds": 900, "seed": seed},
        },
        "environment": {"python": "3.11.2", "torch": "2.13.0", "cpu": "Example CPU @ 2.70GHz", "threads": 1},
        "model": {
            "name": "efficientnet_lite0",
            "sites": layers,
            "formats": FORMATS,
            "ties": [
                {"sites": ["_blocks.2._project_conv", "_blocks.1._project_conv"], "reason": "added together"},
                {"sites": ["_blocks.4._project_conv", "_blocks.3._project_conv"], "reason": "added together"},
            ],
            "skipped": {},
            "unused": [],
        },
        "metric": "kl",
        "objectives": ["quality", "latency_ms", "size_mb"],
        "constraints": {"size_mb": 3.0},
        "float": {
            "validation": {"value": 0.0, "low": 0.0, "high": 0.0, "samples": 512, "split": "validation"},
            "holdout": {"value": 0.0, "low": 0.0, "high": 0.0, "samples": 256, "split": "holdout"},
        },
        "sensitivity": {
            "hessian_trace": {
                "values": [
                    [None if (row, column) == (0, 0) else float(loss[row, column]) for column in range(4)]
                    for row in range(len(layers))
                ],
                "seconds": 12.4,
            }
        },
        "price_tables": {
            "latency_ms": {
                "values": latency.tolist(),
                "base": 0.4,
                "source": "measured",
                "provenance": "onnxruntime 1.22, 1 thread, 30 repeats, median",
            },
            "size_mb": {"values": size.tolist(), "base": 0.17, "source": "exact", "provenance": "bytes on disk"},
        },
        "points": document_points,
        "predicted_front": _predicted_front(loss, size),
        "best": best["id"],
        "best_reason": "lowest held-out KL among the configurations of at most 3 MB; uniform w4 has 3.1 times as much",
        "proxies": {
            "hessian_trace": {"spearman": 0.96, "points": points},
            "weight_mse": {"spearman": None, "points": 2},
        },
        "surrogate": {"intercept": 0.1, "slope": 1.02, "spread": 0.25, "points": points, "offset": 0.0},
        "seconds": {"score": 12.4, "evaluate": 180.5},
        "failed": {"0123456789abcdef": "outputs are not finite"},
        "notes": [],
        "exports": [
            {
                "target": "onnx",
                "path": "export/model.onnx",
                "relative_error": 0.0021,
                "bound": 0.01,
                "bytes_on_disk": 2_913_004,
            }
        ],
    }


def _measurement(value: float, spread: float, samples: int, split: str) -> dict[str, Any]:
    return {
        "value": value,
        "low": value * (1 - spread),
        "high": value * (1 + spread),
        "samples": samples,
        "split": split,
    }


def _dominates(one: dict[str, Any], other: dict[str, Any]) -> bool:
    def axes(point: dict[str, Any]) -> list[float]:
        prices = point["prices"]
        return [point["measured"]["validation"]["value"], prices["latency_ms"]["value"], prices["size_mb"]["value"]]

    mine, theirs = axes(one), axes(other)
    return all(a <= b for a, b in zip(mine, theirs, strict=True)) and mine != theirs


def _predicted_front(loss: np.ndarray[Any, Any], size: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    rows, found = np.arange(len(loss)), {}
    for ratio in np.geomspace(1e-6, 300.0, 400):
        choice = np.argmin(loss + ratio * size, axis=1)
        found[float(size[rows, choice].sum()) + 0.17] = float(loss[rows, choice].sum())
    return [{"cost": {"size_mb": cost}, "loss": found[cost]} for cost in sorted(found)]
