"""Observers: who chooses the clipping range of an activation from the calibration data."""

from .entropy import Entropy
from .gather import observed_ranges
from .histogram import Histogram
from .minmax import MinMax
from .moving_average import MovingAverage
from .mse import MeanSquaredError
from .percentile import Percentile
from .protocol import Observer
from .registry import OBSERVERS

__all__ = [
    "OBSERVERS",
    "Entropy",
    "Histogram",
    "MeanSquaredError",
    "MinMax",
    "MovingAverage",
    "Observer",
    "Percentile",
    "observed_ranges",
]
