r"""Numeric formats: how the weight and the input activation of a layer are stored and computed.

The grammar of the names, parsed and printed round-trip::

    format     = "fp32" | "bf16" | weight [activation]
    weight     = "w" bits            bits 2 .. 8: signed integer, symmetric, one scale per output channel
    activation = "a" bits            bits 2 .. 8: unsigned integer, asymmetric, one static scale and zero-point

``w4`` quantizes weights only (activations stay in the floating-point type of the model), ``w4a8`` also the
activations that enter the layer.

>>> Format.parse("w4a8").activation_bits
8
>>> str(Format.parse("w4a8"))
'w4a8'
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from .errors import UnknownFormat

Number = Literal["int", "float"]
Granularity = Literal["tensor", "channel"]

_GRAMMAR = re.compile(r"w(?P<weight>[2-8])(?:a(?P<activation>[2-8]))?")
_CONTAINERS = (2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class TensorFormat:
    """How one tensor is represented.

    Attributes:
        number: ``"int"`` or ``"float"``.
        bits: nominal bits of one element.
        granularity: ``"channel"`` (one scale per output channel) or ``"tensor"`` (one scale).
        symmetric: whether the zero-point is fixed at 0.
    """

    number: Number
    bits: int
    granularity: Granularity = "tensor"
    symmetric: bool = True

    @property
    def levels(self) -> tuple[int, int]:
        """Smallest and largest integer code: signed when symmetric, unsigned otherwise."""
        if self.number != "int":
            raise UnknownFormat(f"a {self.bits}-bit float has no integer levels; ask only integer formats")
        if self.symmetric:
            return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        return 0, 2**self.bits - 1

    @property
    def container_bits(self) -> int:
        """Bits that one element takes in memory and on disk: the next of 2, 4, 8, 16, 32.

        Runtimes have no 3-, 5-, 6- or 7-bit containers, so 3-bit codes are stored in 4 bits, and so on.
        """
        return next(width for width in _CONTAINERS if width >= self.bits)

    def scale_bits(self, shape: Sequence[int], channel_axis: int) -> int:
        """Bits that the scales (float32) and zero-points (uint8, if asymmetric) of a tensor take."""
        if self.number == "float":
            return 0
        scales = shape[channel_axis] if self.granularity == "channel" else 1
        return scales * (32 if self.symmetric else 40)


_FP32 = TensorFormat("float", 32)
_BF16 = TensorFormat("float", 16)


@dataclass(frozen=True, slots=True)
class Format:
    """The numeric format of a layer: its weight, and the activation that enters it.

    Attributes:
        name: the name in the grammar of this module, also the key of every table.
        weight: representation of the weight.
        activation: representation of the input; ``None`` leaves the type that the model computes in.
    """

    name: str
    weight: TensorFormat
    activation: TensorFormat | None = None

    @staticmethod
    def parse(name: str) -> Format:
        """Read a format name.

        Args:
            name: such as ``"w4"``, ``"w8a8"``, ``"bf16"``.

        Returns:
            The format; ``str()`` of it is ``name`` again.

        Raises:
            UnknownFormat: the name is not in the grammar; the message names the nearest ones.
        """
        known = _known()
        if not isinstance(name, str) or name not in known:
            near = difflib.get_close_matches(str(name).lower(), known, n=3, cutoff=0.3) or ["w4", "w8", "bf16"]
            raise UnknownFormat(
                f"unknown format {name!r}; nearest: {', '.join(near)} (w2 … w8, wXaY with Y 2 … 8, bf16, fp32)"
            )
        return known[name]

    @property
    def weight_bits(self) -> int:
        """Nominal bits of one weight."""
        return self.weight.bits

    @property
    def activation_bits(self) -> int | None:
        """Nominal bits of one input activation; ``None`` where the model's own type is kept."""
        return None if self.activation is None else self.activation.bits

    @property
    def is_float(self) -> bool:
        """Whether weight and activation are both floating point."""
        return self.weight.number == "float"

    @property
    def quantizes_activations(self) -> bool:
        """Whether the input is mapped to integers, so that calibration data is needed."""
        return self.activation is not None and self.activation.number == "int"

    def stored_bits(self, shape: Sequence[int], channel_axis: int) -> int:
        """Bits on disk of a weight: elements in their container, plus scales."""
        return math.prod(shape) * self.weight.container_bits + self.weight.scale_bits(shape, channel_axis)

    def effective_bits(self, shape: Sequence[int], channel_axis: int) -> float:
        """Nominal bits per weight element, with the scales spread over the elements."""
        return self.weight.bits + self.weight.scale_bits(shape, channel_axis) / math.prod(shape)

    def __str__(self) -> str:
        return self.name


def names() -> Iterable[str]:
    """Every name in the grammar, in order of weight bits."""
    for weight in range(2, 9):
        yield f"w{weight}"
        for activation in range(2, 9):
            yield f"w{weight}a{activation}"
    yield from ("bf16", "fp32")


@lru_cache(maxsize=1)
def _known() -> dict[str, Format]:
    """Every format of the grammar by its name."""
    known = {"bf16": Format("bf16", _BF16, _BF16), "fp32": Format("fp32", _FP32)}
    for match in filter(None, map(_GRAMMAR.fullmatch, names())):
        weight, activation = TensorFormat("int", int(match["weight"]), "channel"), None
        if match["activation"] is not None:
            activation = TensorFormat("int", int(match["activation"]), "tensor", symmetric=False)
        known[match[0]] = Format(match[0], weight, activation)
    return known


def precision_order(format_names: Iterable[str]) -> list[str]:
    """The names sorted from the coarsest to the finest (weight bits, then activation bits)."""

    def key(name: str) -> tuple[int, int]:
        parsed = Format.parse(name)
        return parsed.weight_bits, parsed.activation_bits or 32

    return sorted(dict.fromkeys(format_names), key=key)
