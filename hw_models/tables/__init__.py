"""Measured latency tables: where they come from, what they hold, how they are read.

``gemms(device)`` gives the measured products of a device, ``tables(device)`` says what was measured and by whom,
``add`` takes a user's own measurements, ``required_kernel`` says which kernel prices a format, or refuses.
"""

from __future__ import annotations

from .aiconfigurator import QuantizationCosts, available, quantization_costs
from .importing import read_table
from .info import TableInfo
from .kernel_formats import kernel_format, required_kernel, served_formats
from .registry import add, answering, gemms, load, summary, tables, user_folder
from .table import LatencyTable

__all__ = [
    "LatencyTable",
    "QuantizationCosts",
    "TableInfo",
    "add",
    "answering",
    "available",
    "gemms",
    "kernel_format",
    "load",
    "quantization_costs",
    "read_table",
    "required_kernel",
    "served_formats",
    "summary",
    "tables",
    "user_folder",
]
