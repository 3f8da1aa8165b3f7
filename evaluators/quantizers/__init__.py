"""How tensors are rounded: the elements of every format, their scales, weights and activations."""

from .activation import (
    ActivationQuantizer,
    BlockScaledQuantizer,
    ChannelQuantizer,
    DynamicQuantizer,
    FloatQuantizer,
    FloatRounding,
    Quantizer,
    Range,
    activation_quantizer,
)
from .floating import round_to_float
from .grid import codebook, decode, encode, nearest
from .layout import Layout, as_groups, from_groups
from .scales import choose_scales, minmax_scales, mse_scales
from .weight import QuantizedWeight, WeightScale, quantize_weight

__all__ = [
    "ActivationQuantizer",
    "BlockScaledQuantizer",
    "ChannelQuantizer",
    "DynamicQuantizer",
    "FloatQuantizer",
    "FloatRounding",
    "Layout",
    "QuantizedWeight",
    "Quantizer",
    "Range",
    "WeightScale",
    "activation_quantizer",
    "as_groups",
    "choose_scales",
    "codebook",
    "decode",
    "encode",
    "from_groups",
    "minmax_scales",
    "mse_scales",
    "nearest",
    "quantize_weight",
    "round_to_float",
]
