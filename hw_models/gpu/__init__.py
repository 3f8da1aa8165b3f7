"""Latency of models on named GPUs, from measured tables and the predictor fitted to them."""

from __future__ import annotations

from .device_tables import GpuTables
from .elementwise import ElementwiseLaw, fit_law
from .explain import explain
from .gemm_times import GemmTimes, Times
from .gpu_latency import assembled, gpu_latency
from .loading import gpu_tables, has_tables
from .products import Products, products

__all__ = [
    "ElementwiseLaw",
    "GemmTimes",
    "GpuTables",
    "Products",
    "Times",
    "assembled",
    "explain",
    "fit_law",
    "gpu_latency",
    "gpu_tables",
    "has_tables",
    "products",
]
