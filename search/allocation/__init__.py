"""Exact allocation of formats to sites: one budget or many, whole fronts, always with a certificate."""

from .allocate import allocate
from .front import exact_front, hull_front
from .result import Allocation

__all__ = ["Allocation", "allocate", "exact_front", "hull_front"]
