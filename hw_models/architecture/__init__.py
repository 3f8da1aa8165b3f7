"""Latency of whole architectures: an encoding of the network and a regression on it.

``ArchitecturePredictor`` learns milliseconds from sampled measurements on one device; ``DeviceTransfer`` foretells a
new device from a handful of them and what other devices take.
"""

from __future__ import annotations

from .cells import OPERATIONS, encode_cells, parse_cell
from .encoding import Encoding, encode, encode_choices
from .predictor import ArchitecturePredictor
from .transfer import DeviceTransfer

__all__ = [
    "OPERATIONS",
    "ArchitecturePredictor",
    "DeviceTransfer",
    "Encoding",
    "encode",
    "encode_cells",
    "encode_choices",
    "parse_cell",
]
