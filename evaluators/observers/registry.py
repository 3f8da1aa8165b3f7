"""The observers by the names that recipes use."""

from __future__ import annotations

from collections.abc import Callable

from .entropy import Entropy
from .minmax import MinMax
from .moving_average import MovingAverage
from .mse import MeanSquaredError
from .percentile import Percentile
from .protocol import Observer

#: Name in ``Recipe.activations`` -> the observer with its default settings.
OBSERVERS: dict[str, Callable[[], Observer]] = {
    "minmax": MinMax,
    "moving_average": MovingAverage,
    "percentile": Percentile,
    "mse": MeanSquaredError,
    "entropy": Entropy,
}
