r"""Numeric formats: how the weight and the input activation of a layer are stored and computed.

The grammar of the names, parsed and printed round-trip::

    format      = "fp32" | "fp16" | "bf16" | "nf4" | block | "fp8" | "fp8d" | "fp8b128"
                | "w" weight ["a" activation]
    weight      = number [spread] ["z"] | block                 integers 2 .. 8; minifloats e1m1 .. e7m0 of 3 to 8 bits
    activation  = number ["c" | "d" | group] ["z" | "s"] | block
    number      = bits | "e" exponent "m" mantissa
    spread      = "t" | group | "b128"                          default: one scale per output channel
    group       = "g32" | "g64" | "g128"
    block       = "mxfp8" | "mxfp6" | "mxfp4" | "nvfp4"

==========  ==========================================================================================================
``w4``      4-bit signed integers, symmetric, one float32 scale per output channel; activations stay as they are
``w4g128``  one float16 scale per 128 weights of a row; ``t``: one for the tensor; ``b128``: one per 128 x 128 square
``w4g64z``  asymmetric: unsigned codes and a zero-point
``w8a8``    also the input: unsigned 8-bit integers, asymmetric, one static scale per tensor; ``s``: symmetric
``w8a8d``   dynamic: one scale per token (row), from the tensor itself, symmetric; ``z``: asymmetric
``w8a8g32`` dynamic, one scale per 32 features; ``w8a8c``: static, one scale per feature
``fp8``     e4m3 weights per output channel, e4m3 inputs with one static scale (``we4m3ae4m3``)
``fp8d``    likewise, inputs with one dynamic scale per token (``we4m3ae4m3d``)
``fp8b128`` e4m3 weights in squares of 128, inputs in groups of 128 (``we4m3b128ae4m3g128``; DeepSeek-V3)
``mxfp4``   blocks of 32 with a power-of-two scale (OCP MX), weights and inputs; elements e4m3, e2m3, e2m1
``nvfp4``   blocks of 16 e2m1 with an e4m3 scale, and a float32 scale for the tensor; weights and inputs
``nf4``     the 16 quantiles of a normal distribution, float32 scale per 64 weights (QLoRA); weights only
``wmxfp4``  a block format for the weights alone; ``we4m3``, ``w4g128ae4m3d``, … : any weight with any input
==========  ==========================================================================================================

>>> Format.parse("w4a8").activation_bits
8
>>> str(Format.parse("w4g128"))
'w4g128'
>>> Format.parse("w4g128").effective_bits((256, 512), 0)
4.125
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from .errors import UnknownFormat
from .tensor_format import BF16, FP16, FP32, Granularity, Number, ScaleType, TensorFormat

__all__ = [
    "Format",
    "Granularity",
    "Number",
    "ScaleType",
    "TensorFormat",
    "activation_name",
    "names",
    "precision_order",
    "weight_name",
]

_BLOCKS = {
    "mxfp8": TensorFormat("float", 8, "group", True, 32, 4, 3, "e8m0"),
    "mxfp6": TensorFormat("float", 6, "group", True, 32, 2, 3, "e8m0"),
    "mxfp4": TensorFormat("float", 4, "group", True, 32, 2, 1, "e8m0"),
    "nvfp4": TensorFormat("float", 4, "group", True, 16, 2, 1, "e4m3"),
}
_NF4 = TensorFormat("codebook", 4, "group", True, 64)
_WIDE = {"bf16": (BF16, BF16), "fp16": (FP16, FP16), "fp32": (FP32, None)}
_SHORT = {"we4m3ae4m3": "fp8", "we4m3ae4m3d": "fp8d", "we4m3b128ae4m3g128": "fp8b128"} | {
    f"w{block}a{block}": block for block in _BLOCKS
}
_LONG = {short: long for long, short in _SHORT.items()}

_NUMBER = r"(?:(?P<bits>[2-8])|e(?P<exponent>[1-7])m(?P<mantissa>[0-6]))"
_WEIGHT = re.compile(_NUMBER + r"(?P<spread>t|g32|g64|g128|b128)?(?P<zero>z)?")
_ACTIVATION = re.compile(_NUMBER + r"(?P<spread>c|d|g32|g64|g128)?(?P<zero>z|s)?")
_PAIR = re.compile(r"w(?P<weight>[^a]+)(?:a(?P<activation>.+))?")
_SPREAD: dict[str, Granularity] = {"t": "tensor", "c": "channel", "d": "token", "g": "group", "b": "block"}


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
            name: such as ``"w4"``, ``"w4g128"``, ``"w8a8"``, ``"mxfp4"``, ``"bf16"``.

        Returns:
            The format; ``str()`` of it is ``name`` again.

        Raises:
            UnknownFormat: the name is not in the grammar; the message names the nearest ones.
        """
        found = _parsed(name) if isinstance(name, str) else None
        if found is None:
            near = difflib.get_close_matches(str(name).lower(), list(names()), n=3, cutoff=0.3) or ["w4", "w8", "bf16"]
            raise UnknownFormat(
                f"unknown format {name!r}; nearest: {', '.join(near)} "
                "(w2 … w8, w4g128, w8a8, fp8, mxfp4, nvfp4, nf4, bf16, fp32, …: see `bitfront formats`)"
            )
        return found

    @property
    def weight_bits(self) -> int:
        """Nominal bits of one weight."""
        return self.weight.bits

    @property
    def activation_bits(self) -> int | None:
        """Nominal bits of one input activation; ``None`` where the model's own type is kept."""
        return None if self.activation is None else self.activation.bits

    @property
    def is_wide(self) -> bool:
        """Whether weight and activation are floats of 16 or 32 bits, so that nothing has a scale."""
        return self.weight.is_wide

    @property
    def quantizes_activations(self) -> bool:
        """Whether the input is mapped to a narrow format (not merely to a float of 16 bits)."""
        return self.activation is not None and not self.activation.is_wide

    @property
    def needs_ranges(self) -> bool:
        """Whether the input has static scales, so that calibration data is needed."""
        return self.activation is not None and not self.activation.is_wide and not self.activation.dynamic

    def stored_bits(self, shape: Sequence[int], channel_axis: int) -> int:
        """Bits on disk of a weight: elements in their container, plus scales."""
        return math.prod(shape) * self.weight.container_bits + self.weight.scale_bits(shape, channel_axis)

    def effective_bits(self, shape: Sequence[int], channel_axis: int) -> float:
        """Nominal bits per weight element, with the scales spread over the elements."""
        return self.weight.bits + self.weight.scale_bits(shape, channel_axis) / math.prod(shape)

    def refusal(self, kind: str, shape: Sequence[int], channel_axis: int) -> str:
        """Why a layer cannot take this format; empty if it can.

        Args:
            kind: layer kind, as ``Site.kind``.
            shape: of its weight.
            channel_axis: axis of the output channels.
        """
        if self.quantizes_activations and kind in ("embedding", "mha_in_proj", "mha_out_proj"):
            return f"{self} rounds the input, which a layer of kind {kind} does not pass through a hook"
        dense = kind in ("linear", "hf_conv1d")
        if self.activation is not None and self.activation.granularity in ("token", "group") and not dense:
            return f"{self} scales the input by token or group, which only linear layers have kernels for, not {kind}"
        if self.activation is not None and self.activation.granularity == "channel" and kind != "linear":
            return f"{self} scales the input by feature, which is defined for linear layers, not {kind}"
        if self.weight.granularity in ("group", "block") and len(shape) != 2:
            return f"{self} has groups of weights, which only matrices are stored in, not {kind}"
        if self.weight.granularity == "group" or (self.activation is not None and self.activation.group):
            elements = math.prod(shape) // shape[channel_axis]
            groups = [each.group for each in (self.weight, self.activation) if each is not None and each.group]
            group = math.lcm(*groups)
            if elements % group:
                return f"{self} has groups of {group}, which do not divide rows of {elements} weights"
        return ""

    def __str__(self) -> str:
        return self.name


def weight_name(target: TensorFormat) -> str:
    """The name of the weight-only format of a weight, such as ``"w4g128"``: the key of its scales."""
    for block, known in _BLOCKS.items():
        if target == known:
            return f"w{block}"
    if target == _NF4:
        return "nf4"
    for name, (weight, _) in _WIDE.items():
        if target == weight:
            return name
    letter = {granularity: text for text, granularity in _SPREAD.items()}[target.granularity]
    spread = {"channel": "", "tensor": "t"}.get(target.granularity, f"{letter}{target.group}")
    return f"w{_number(target)}{spread}{'' if target.symmetric else 'z'}"


def activation_name(target: TensorFormat) -> str:
    """The part of a format name that stands for an activation, such as ``"a8"``: the key of its ranges."""
    for block, known in _BLOCKS.items():
        if replace(target, dynamic=False) == known:
            return f"a{block}"
    spread = {"tensor": "", "channel": "c", "token": "d"}.get(target.granularity, f"g{target.group}")
    if target.number == "float":
        return f"a{_number(target)}{spread}"
    return f"a{target.bits}{spread}" + ("z" if target.dynamic else "s") * (target.symmetric != target.dynamic)


def _number(target: TensorFormat) -> str:
    return f"e{target.exponent_bits}m{target.mantissa_bits}" if target.number == "float" else str(target.bits)


@lru_cache(maxsize=1 << 14)
def _parsed(name: str) -> Format | None:
    """The format of a name; ``None`` for what is not in the grammar, or not written in its shortest form."""
    if name in _WIDE:
        return Format(name, *_WIDE[name])
    if name == "nf4":
        return Format(name, _NF4)
    match = None if name in _SHORT else _PAIR.fullmatch(_LONG.get(name, name))
    if match is None:
        return None
    weight = _BLOCKS.get(match["weight"]) or _tensor(_WEIGHT.fullmatch(match["weight"]), activation=False)
    activation = None
    if weight is not None and match["activation"] is not None:
        block = _BLOCKS.get(match["activation"])
        # a block format scales each block when it is there; nvfp4 has a static scale for the tensor besides
        activation = replace(block, dynamic=block.scale != "e4m3") if block else None
        activation = activation or _tensor(_ACTIVATION.fullmatch(match["activation"]), activation=True)
        if activation is None:
            return None
    return None if weight is None else Format(name, weight, activation)


def _tensor(match: re.Match[str] | None, activation: bool) -> TensorFormat | None:
    """A tensor format from its matched name; ``None`` if there is none, or it is not the shortest name."""
    if match is None:
        return None
    spread = match["spread"] or ""
    granularity = _SPREAD[spread[0]] if spread else ("tensor" if activation else "channel")
    group = int(spread[1:]) if spread[1:] else 0
    dynamic = activation and granularity in ("token", "group")
    if match["bits"]:
        symmetric = (match["zero"] != "z") if dynamic or not activation else match["zero"] == "s"
        if activation and match["zero"] == ("s" if dynamic else "z"):
            return None  # the default has no letter
        scale: ScaleType = "fp16" if granularity == "group" and not activation else "fp32"
        return TensorFormat("int", int(match["bits"]), granularity, symmetric, group, scale=scale, dynamic=dynamic)
    exponent, mantissa = int(match["exponent"]), int(match["mantissa"])
    bits = 1 + exponent + mantissa
    if not 3 <= bits <= 8 or match["zero"]:
        return None
    return TensorFormat("float", bits, granularity, True, group, exponent, mantissa, dynamic=dynamic)


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """The formats that runtimes know, in order of weight bits; the grammar has more (any weight with any input)."""
    integers = [
        f"w{bits}{spread}{zero}"
        for bits, spread, zero in itertools.product(range(2, 9), ("", "t", "g32", "g64", "g128"), ("", "z"))
    ]
    with_input = [f"w{weight}a{bits}" for weight, bits in itertools.product(range(2, 9), repeat=2)]
    dynamic = [
        f"w{weight}{spread}a{bits}{how}"
        for weight, spread, bits, how in itertools.product((4, 8), ("", "g32", "g128"), (4, 8), ("d", "dz", "g32", "s"))
    ]
    floats = ["fp8", "fp8d", "fp8b128", "we4m3", "we5m2", "we3m2", "we2m3", "we2m1", "we2m1g32", "w4g128ae4m3d"]
    blocks = [*_BLOCKS, *(f"w{block}" for block in _BLOCKS), "wmxfp4amxfp8", "wmxfp6amxfp8", "nf4"]
    found = [*integers, *with_input, *dynamic, *floats, *blocks, "bf16", "fp16", "fp32"]
    return tuple(precision_order(found))


def precision_order(format_names: Iterable[str]) -> list[str]:
    """The names sorted from the coarsest to the finest.

    By weight bits, then activation bits, then the scales: per tensor, block, channel, group (smaller is finer);
    asymmetric after symmetric.
    """

    def key(name: str) -> tuple[object, ...]:
        parsed = Format.parse(name)
        spread = ("tensor", "token", "block", "channel", "group").index
        tensors = [each for each in (parsed.weight, parsed.activation) if each is not None]
        scales = [(spread(each.granularity), -each.group, not each.symmetric) for each in tensors]
        return parsed.weight_bits, parsed.activation_bits or 32, scales, parsed.weight.mantissa_bits, name

    return sorted(dict.fromkeys(format_names), key=key)
