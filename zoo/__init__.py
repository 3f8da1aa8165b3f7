"""Small real models with real data, for demos, tests and benchmarks: `load(name)` returns both."""

from __future__ import annotations

from .entry import Batch, Card, Inputs, Loss, Progress, Sizes, ZooEntry
from .registry import describe, load, names

__all__ = [
    "Batch",
    "Card",
    "Inputs",
    "Loss",
    "Progress",
    "Sizes",
    "ZooEntry",
    "describe",
    "load",
    "names",
]
