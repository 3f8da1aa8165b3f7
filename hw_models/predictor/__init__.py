"""Latency of matrix products on a device with a dense table: roofline and boosted residual, with intervals.

``fit(rows)`` gives a ``DensePredictor`` (a ``LatencyModel``); ``fitted(rows)`` keeps it on disk.
"""

from __future__ import annotations

from .dense import DensePredictor, fit
from .features import bounds_ms, roofline_ms
from .format_model import EXTRAPOLATION, FormatModel
from .kept import default_folder, fitted

__all__ = [
    "EXTRAPOLATION",
    "DensePredictor",
    "FormatModel",
    "bounds_ms",
    "default_folder",
    "fit",
    "fitted",
    "roofline_ms",
]
