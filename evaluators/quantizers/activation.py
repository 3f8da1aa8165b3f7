"""``activation_quantizer``: what rounds the tensor that enters a layer, for every format of the grammar."""

from __future__ import annotations

from ...errors import InvalidInput
from ...formats import TensorFormat, activation_name
from .dynamic_activation import BlockScaledQuantizer, DynamicQuantizer
from .static_activation import (
    ActivationQuantizer,
    ChannelQuantizer,
    FloatQuantizer,
    FloatRounding,
    Quantizer,
    Range,
)

__all__ = [
    "ActivationQuantizer",
    "BlockScaledQuantizer",
    "ChannelQuantizer",
    "DynamicQuantizer",
    "FloatQuantizer",
    "FloatRounding",
    "Quantizer",
    "Range",
    "activation_quantizer",
]


def activation_quantizer(target: TensorFormat, found: Range | None = None) -> Quantizer:
    """What rounds an activation.

    Every quantizer maps zero to zero, keeps NaN, and returns the type of its input, without a gradient.

    Args:
        target: the format; dynamic and wide formats need no range.
        found: clipping range for static formats.

    Returns:
        The quantizer: a frozen dataclass, equal to another that computes the same.

    Raises:
        InvalidInput: a static format came without a range, or with one that is not finite.
    """
    if target.is_wide:
        return FloatRounding(target)
    if target.dynamic:
        return DynamicQuantizer(target)
    if found is None:
        raise InvalidInput(f"{activation_name(target)} has static scales: give the range that calibration found")
    if target.scale == "e4m3":
        return BlockScaledQuantizer.from_range(found, target)
    if target.granularity == "channel":
        return ChannelQuantizer.from_range(found, target)
    if target.number == "float":
        return FloatQuantizer.from_range(float(found.low), float(found.high), target)
    return ActivationQuantizer.from_range(float(found.low), float(found.high), target.bits, target.symmetric)
