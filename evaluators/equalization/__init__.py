"""Equalization: function-preserving changes of the float model that make it easier to quantize."""

from .cross_layer import bound_output, equalize
from .prepare import prepared
from .smoothquant import smooth, smooth_input

#: The hooks that a prepared model carries: torch functions of the tensor and a buffer of the module, safe to trace.
HOOKS = frozenset({bound_output, smooth_input})

__all__ = ["HOOKS", "equalize", "prepared", "smooth"]
