"""Equalization: function-preserving changes of the float model that make it easier to quantize."""

from .prepare import prepared

__all__ = ["prepared"]
