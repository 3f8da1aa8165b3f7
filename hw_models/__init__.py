"""What a configuration costs: size, bits, operations, and latency on a named device.

``price(space, device=..., batch=..., metrics=...)`` answers for every (site, format); ``Prices.of(configuration)``
adds a configuration up. Exact figures are labelled ``exact``, timed ones ``measured``, data-sheet ones ``roofline``.
"""

from __future__ import annotations

from .cost_model import CostModel, Question, cost_models, joint_price
from .devices import Device, device, devices
from .kernels import Kernel, site_kernel
from .peak_memory import PeakRows, peak_rows
from .price import DEFAULT_METRICS, METRICS, planned, price
from .prices import Joint, Price, Prices, PriceTable, Whole
from .rows import KernelRow, MeasuredTable

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "CostModel",
    "Device",
    "Joint",
    "Kernel",
    "KernelRow",
    "MeasuredTable",
    "PeakRows",
    "Price",
    "PriceTable",
    "Prices",
    "Question",
    "Whole",
    "cost_models",
    "device",
    "devices",
    "joint_price",
    "peak_rows",
    "planned",
    "price",
    "site_kernel",
]
