"""Observers: who chooses the clipping range of an activation from the calibration data."""

from .gather import observed_ranges

__all__ = ["observed_ranges"]
