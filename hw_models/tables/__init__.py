"""Measured latency tables: where they come from, what they hold, how they are read."""

from __future__ import annotations

from .aiconfigurator import QuantizationCosts, available, gemms, quantization_costs

__all__ = ["QuantizationCosts", "available", "gemms", "quantization_costs"]
