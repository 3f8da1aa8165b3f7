"""Colours and symbols, the same in every picture.

Colours are safe for colour-blind readers: weight bits run from warm (coarse) to cold (fine); what was measured is
green, what was predicted purple, what is dominated grey. A format that quantizes activations too is crossed.
"""

from __future__ import annotations

from typing import Any

from ..errors import UnknownFormat
from ..formats import Format

BITS_COLOURS = {
    2: "#b8400e",
    3: "#dd7a2e",
    4: "#f2b134",
    5: "#d9cf7f",
    6: "#9ccbb2",
    7: "#79bfd6",
    8: "#56a5dc",
    16: "#1f5fa8",
    32: "#54409b",
}
UNKNOWN, DOMINATED, GRID, INK = "#8a8a8a", "#a3a3a3", "rgba(128,128,128,0.25)", "#6b6b6b"
MEASURED, PREDICTED, BEST, LIMIT = "#00916e", "#8b5fbf", "#d01c6f", "#c03030"


def weight_bits(format_name: str) -> int | None:
    """Nominal weight bits of a format; ``None`` for a name that this version does not know."""
    try:
        return Format.parse(format_name).weight_bits
    except UnknownFormat:
        return None


def quantizes_activations(format_name: str) -> bool:
    """Whether a format maps activations to narrow numbers; ``False`` for a name that this version does not know."""
    return weight_bits(format_name) is not None and Format.parse(format_name).quantizes_activations


def format_colour(format_name: str) -> str:
    """The colour of a format, by its weight bits."""
    return BITS_COLOURS.get(weight_bits(format_name) or 0, UNKNOWN)


def symbol(shape: str, format_name: str) -> str:
    """Plain for weight-only formats, crossed for those that quantize activations too."""
    return f"{shape}-x" if quantizes_activations(format_name) else shape


def square_marker(format_name: str, size: int) -> dict[str, Any]:
    """The marker of a layer in a format: its colour, crossed with a firmer edge if activations are quantized too."""
    return {
        "symbol": symbol("square", format_name),
        "size": size,
        "color": format_colour(format_name),
        "line": {"color": INK, "width": 1 if quantizes_activations(format_name) else 0.5},
    }
