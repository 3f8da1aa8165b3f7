"""Codes of 2, 4 and 8 bits side by side in bytes, the first in the low bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def packed(codes: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Codes side by side in bytes, the first in the low bits.

    Args:
        codes: int8 or uint8 of any shape.
        bits: 2, 4 or 8 for each.
    """
    flat = np.ascontiguousarray(codes).view(np.uint8).reshape(-1) & np.uint8((1 << bits) - 1)
    per_byte = 8 // bits
    flat = np.pad(flat, (0, -len(flat) % per_byte)).reshape(-1, per_byte)
    found = np.zeros(len(flat), np.uint8)
    for position in range(per_byte):
        found |= flat[:, position] << np.uint8(position * bits)
    return found


def unpacked(data: NDArray[np.uint8], bits: int, count: int, signed: bool) -> NDArray[np.int16]:
    """The inverse of ``packed``: the first ``count`` codes."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = ((data[:, None] >> shifts) & np.uint8((1 << bits) - 1)).reshape(-1)[:count].astype(np.int16)
    return np.where(codes >= 1 << (bits - 1), codes - (1 << bits), codes).astype(np.int16) if signed else codes
