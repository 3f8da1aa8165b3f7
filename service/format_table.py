"""The numeric formats as a table."""

from __future__ import annotations

from typing import Any

from ..formats import Format, TensorFormat, names

_MATRIX = (4096, 4096)


def format_rows(name: str | None = None, everything: bool = False) -> list[dict[str, Any]]:
    """One row per format: what weight and input are, and the bits of a weight in a 4096 x 4096 matrix.

    Args:
        name: one format; by default those of ``formats.names`` that have kernels.
        everything: also those that have none.

    Raises:
        UnknownFormat: the name is not in the grammar.
    """
    from ..device_generations import generations

    return [
        {
            "format": each.name,
            "weight": _words(each.weight, "output channel"),
            "input": "as the model computes" if each.activation is None else _words(each.activation, "feature"),
            "effective bits": round(each.effective_bits(_MATRIX, 0), 4),
            "stored bits": round(each.stored_bits(_MATRIX, 0) / _MATRIX[0] / _MATRIX[1], 4),
            "kernels": ", ".join(generations(each)) or "none known",
        }
        for each in ([Format.parse(name)] if name else map(Format.parse, names()))
        if name or everything or generations(each)
    ]


def _words(target: TensorFormat, channel: str) -> str:
    """A tensor format in words."""
    if target.is_wide:
        return f"{target.bits}-bit float"
    number = {
        "int": f"int{target.bits}",
        "float": f"e{target.exponent_bits}m{target.mantissa_bits}",
        "codebook": "nf4",
    }[target.number]
    spread = {
        "tensor": "per tensor",
        "channel": f"per {channel}",
        "group": f"per {target.group}",
        "block": f"per {target.group} x {target.group}",
        "token": "per token",
    }[target.granularity]
    scale = "" if target.scale == "fp32" else f", {target.scale} scales"
    zero = "" if target.symmetric else ", zero-point"
    return f"{number} {spread}{scale}{zero}{', dynamic' if target.dynamic else ''}"
