"""How tensors are rounded: integer and floating-point quantizers, and the choice of scales."""

from .floating import round_to_float
from .integer import ActivationQuantizer, QuantizedWeight, broadcast, quantize_weight
from .scales import mse_scales

__all__ = [
    "ActivationQuantizer",
    "QuantizedWeight",
    "broadcast",
    "mse_scales",
    "quantize_weight",
    "round_to_float",
]
