"""Equalization: function-preserving changes of the float model that make it easier to quantize."""

from .cross_layer import equalize
from .prepare import prepared
from .smoothquant import smooth

__all__ = ["equalize", "prepared", "smooth"]
