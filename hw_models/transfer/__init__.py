"""Latency on a new device from a few measurements and the tables of other devices."""

from __future__ import annotations

from .adapt import TransferPredictor, adapt, usable
from .choice import next_shapes
from .source import Sources

__all__ = ["Sources", "TransferPredictor", "adapt", "next_shapes", "usable"]
