"""What a configuration costs: size, bits, operations, and latency on a named device.

``price(space, device=..., batch=..., metrics=...)`` answers for every (site, format); ``Prices.of(configuration)``
adds a configuration up. Exact figures are labelled ``exact``, timed ones ``measured``, data-sheet ones ``roofline``.
"""

from __future__ import annotations

from .cost_model import CostModel, Question, cost_models
from .devices import Device, device, devices
from .kernels import Kernel, site_kernel
from .price import DEFAULT_METRICS, METRICS, planned, price
from .prices import Boundary, Price, Prices, PriceTable
from .rows import KernelRow, MeasuredTable

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "Boundary",
    "CostModel",
    "Device",
    "Kernel",
    "KernelRow",
    "MeasuredTable",
    "Price",
    "PriceTable",
    "Prices",
    "Question",
    "cost_models",
    "device",
    "devices",
    "planned",
    "price",
    "site_kernel",
]
