"""How one tensor is stored: its numbers, and how its scales are laid out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .errors import UnknownFormat

Number = Literal["int", "float", "codebook"]
Granularity = Literal["tensor", "channel", "group", "block", "token"]
ScaleType = Literal["fp32", "fp16", "e8m0", "e4m3"]

_CONTAINERS = (2, 4, 8, 16, 32)
_SCALE_BITS: dict[ScaleType, int] = {"fp32": 32, "fp16": 16, "e8m0": 8, "e4m3": 8}


@dataclass(frozen=True, slots=True)
class TensorFormat:
    """How one tensor is represented.

    Granularities, for a weight seen as a matrix [output channels, elements] and an activation [..., features]:

    ===========  =====================================================================================
    ``tensor``   one scale
    ``channel``  one scale per output channel (activations: per feature)
    ``group``    one scale per ``group`` consecutive elements of a row (activations: of the last axis)
    ``block``    one scale per square of ``group`` x ``group`` elements (weights only)
    ``token``    one scale per row, computed when the tensor is there (activations only)
    ===========  =====================================================================================

    Attributes:
        number: ``"int"``, ``"float"``, or ``"codebook"`` (nf4: the 16 values of QLoRA).
        bits: nominal bits of one element.
        granularity: what shares a scale. Floats of 16 and 32 bits have none.
        symmetric: whether the zero-point is fixed at 0.
        group: elements per scale for ``group``, side of the square for ``block``, else 0.
        exponent_bits: of a float.
        mantissa_bits: of a float.
        scale: number format of the scales. With ``e4m3`` there is one more float32 scale for the whole tensor (nvfp4).
        dynamic: whether scales are computed from the tensor itself at run time, so that no calibration is needed.
    """

    number: Number
    bits: int
    granularity: Granularity = "tensor"
    symmetric: bool = True
    group: int = 0
    exponent_bits: int = 0
    mantissa_bits: int = 0
    scale: ScaleType = "fp32"
    dynamic: bool = False

    @property
    def is_wide(self) -> bool:
        """Whether this is a float of 16 or 32 bits, which needs no scale."""
        return self.number == "float" and self.bits >= 16

    @property
    def levels(self) -> tuple[int, int]:
        """Smallest and largest integer code: signed when symmetric, unsigned otherwise.

        Raises:
            UnknownFormat: the numbers are no integers.
        """
        if self.number != "int":
            raise UnknownFormat(f"a {self.bits}-bit {self.number} has no integer levels; ask only integer formats")
        if self.symmetric:
            return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        return 0, 2**self.bits - 1

    @property
    def exponent_bias(self) -> int:
        """Bias of the exponent of a float: 2^(E-1) - 1."""
        return int(2 ** (self.exponent_bits - 1)) - 1

    @property
    def largest(self) -> float:
        """The largest finite element before scaling (a symmetric integer: its largest positive code).

        e4m3 gives up one mantissa code for NaN, e5m2 and e3m4 their top exponent for infinity and NaN (as wide floats
        do); all other minifloats have only finite values (OCP Microscaling Formats v1.0, section 5.3; ``ml_dtypes``).
        """
        if self.number == "int":
            return float(self.levels[1])
        if self.number == "codebook":
            return 1.0
        exponent, mantissa = self.exponent_bits, self.mantissa_bits
        top, fraction = 2**exponent - 1 - self.exponent_bias, 2.0 - 2.0**-mantissa
        if self.is_wide or (exponent, mantissa) in ((5, 2), (3, 4)):
            top -= 1
        elif (exponent, mantissa) == (4, 3):
            fraction = 2.0 - 2.0 ** (1 - mantissa)
        return float(fraction * 2.0**top)

    @property
    def container_bits(self) -> int:
        """Bits that one element takes in memory and on disk: for integers the next of 2, 4, 8, 16, 32.

        Runtimes have no 3-, 5-, 6- or 7-bit integer containers, so 3-bit codes are stored in 4 bits, and so on. Floats
        of 4 and 6 bits are packed without gaps (OCP MX; CUTLASS), others take the next container.
        """
        if self.number == "float" and self.bits == 6:
            return 6
        return next(width for width in _CONTAINERS if width >= self.bits)

    def scales(self, shape: Sequence[int], channel_axis: int) -> int:
        """How many scales a weight of that shape has.

        Args:
            shape: of the weight.
            channel_axis: the axis of its output channels.
        """
        if self.is_wide:
            return 0
        channels = shape[channel_axis]
        elements = math.prod(shape) // channels if channels else 0
        if self.granularity == "group":
            return channels * math.ceil(elements / self.group)
        if self.granularity == "block":
            return math.ceil(channels / self.group) * math.ceil(elements / self.group)
        return channels if self.granularity == "channel" else 1

    def scale_bits(self, shape: Sequence[int], channel_axis: int) -> int:
        """Bits that scales and zero-points of a weight take.

        A zero-point is stored in the container of the codes, but in at least 4 bits.
        """
        if self.is_wide:
            return 0
        zero_point = 0 if self.symmetric else max(4, self.container_bits)
        whole = 32 if self.scale == "e4m3" else 0
        return self.scales(shape, channel_axis) * (_SCALE_BITS[self.scale] + zero_point) + whole


FP32 = TensorFormat("float", 32, exponent_bits=8, mantissa_bits=23)
BF16 = TensorFormat("float", 16, exponent_bits=8, mantissa_bits=7)
FP16 = TensorFormat("float", 16, exponent_bits=5, mantissa_bits=10)
