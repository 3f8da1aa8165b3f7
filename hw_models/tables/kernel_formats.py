"""Which kernel of a latency table runs a format, and which it refuses.

A format is served where ``device_generations`` knows a production kernel for it on GPUs and the tables have that
kernel:

=============  ==================================================================================  ==================
kernel         what it computes                                                                    formats
=============  ==================================================================================  ==================
``fp32``       float32, no tensor cores; ``tf32``: inputs rounded to 10 bits of mantissa           fp32
``fp16``       16-bit floats; ``bf16`` likewise                                                    fp16; bf16
``fp8``        e4m3 by e4m3, scales per tensor, token or output channel                            fp8, fp8d, …
``fp8_block``  e4m3 weights in squares of 128, inputs in groups of 128                             fp8b128
``nvfp4``      blocks of 16 e2m1 on both sides                                                     nvfp4
``int8_wo``    int8 weights, unpacked and multiplied in 16 bits                                    w8, w8g128, …
``int4_wo``    int4 weights, likewise                                                              w4, w4g128, …
``w8a8``       int8 by int8                                                                        w8a8, w8a8d, …
=============  ==================================================================================  ==================

Weights of 2, 3, 5, 6 or 7 bits have no GPU kernel of their own, mx formats and fp8 weights alone have kernels that no
table timed: they are refused, never priced as something else. ``tf32`` is a mode of float32 models, not a format.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any

from ...device_generations import generations
from ...errors import InvalidInput, NotMeasured
from ...formats import Format, names
from ..gemm import GEMM_FORMATS

#: Kernel -> weight and activation format of its rows (``KernelRow``).
PAIRS = {
    "fp32": ("fp32", "fp32"),
    "tf32": ("tf32", "tf32"),
    "fp16": ("fp16", "fp16"),
    "bf16": ("bf16", "bf16"),
    "fp8": ("fp8", "fp8"),
    "fp8_block": ("fp8_block", "fp8_block"),
    "nvfp4": ("nvfp4", "nvfp4"),
    "int8_wo": ("int8", "bf16"),
    "int4_wo": ("int4", "bf16"),
    "w8a8": ("int8", "int8"),
}
_KERNELS = {pair: kernel for kernel, pair in PAIRS.items()} | {
    ("int8", "fp16"): "int8_wo",
    ("int4", "fp16"): "int4_wo",
    ("int4", "fp32"): "int4_wo",
    ("int8", "uint8"): "w8a8",
}


@lru_cache(maxsize=4096)
def kernel_format(format_name: str) -> str | None:
    """The kernel that runs a format on GPUs, one of ``gemm.GEMM_FORMATS``; ``None`` if the tables have none.

    Raises:
        UnknownFormat: the name is not in the grammar.

    >>> kernel_format("w4g128"), kernel_format("fp8d"), kernel_format("w3")
    ('int4_wo', 'fp8', None)
    """
    target = Format.parse(format_name)
    if not set(generations(target)) - {"cpu"}:
        return None
    weight, value = target.weight, target.activation
    if target.is_wide:
        return target.name
    if value is None:
        return {4: "int4_wo", 8: "int8_wo"}.get(weight.bits) if weight.number == "int" else None
    if weight.scale == value.scale == "e4m3":
        return "nvfp4"
    if "e8m0" in (weight.scale, value.scale) or weight.number != value.number:
        return None
    if weight.number == "int":
        return "w8a8"
    return "fp8_block" if weight.granularity == "block" else "fp8"


@lru_cache(maxsize=64)
def served_formats(kernel: str) -> tuple[str, ...]:
    """The formats of ``formats.names()`` that a kernel runs, from the coarsest to the finest."""
    return tuple(name for name in names() if kernel_format(name) == kernel)


def required_kernel(format_name: str, device: str, measured: Collection[str]) -> str:
    """The kernel that prices a format on a device, or a refusal.

    Args:
        format_name: in the grammar of ``formats``.
        device: name in ``devices()``, for the message.
        measured: the kernels that the tables of the device have.

    Raises:
        UnknownFormat: the name is not in the grammar.
        NotMeasured: no table kernel runs the format, or none was measured on the device; the message says what was.
    """
    kernel = kernel_format(format_name)
    if kernel in measured:
        return str(kernel)
    known = set(generations(Format.parse(format_name))) - {"cpu"}
    if kernel is not None:
        why = f"its kernel {kernel} was not measured there"
    else:
        why = "no table has its kernel" if known else "no GPU kernel is known for it"
    has = "; ".join(f"{each}: {', '.join(served_formats(each)) or 'no format'}" for each in _ordered(measured))
    raise NotMeasured(
        f"format {format_name} has no price on {device} ({why}). Measured there: {has or 'nothing'}. "
        "Drop the format, choose another device, or measure it (`bitfront measure`)"
    )


def kernel_of_row(weight_format: str, activation_format: str, attributes: str = "{}") -> str:
    """The kernel of a row of a table; with what sets it apart from the plain one as a suffix.

    Rows that scale every row of the input (``row_scales``) are ``fp8_row`` and ``w8a8d``; 4-bit weights in blocks other
    than 128 are ``int4_wo_g32`` and the like. Only names in ``gemm.GEMM_FORMATS`` take part in prices.
    """
    name = _KERNELS.get((weight_format, activation_format))
    if name is None:
        return f"{weight_format}x{activation_format}"
    said = json.loads(attributes) if attributes not in ("", "{}") else {}
    if "row_scales" in said:
        return {"w8a8": "w8a8d"}.get(name, f"{name}_row")
    block = _first(said.get("block_size", 128))
    level = _first(said.get("accuracy_level", 0))
    return name + (f"_g{block}" if block != 128 else "") + ("_a8" if level == 4 else "")


def kernel_named(name: str, aliases: dict[str, str]) -> str:
    """The kernel that a word of a user's table means: a kernel, an alias, or a format of the grammar.

    Raises:
        InvalidInput: it is none of these.
    """
    kernel = aliases.get(name, name)
    if kernel in GEMM_FORMATS:
        return kernel
    if kernel in _grammar():
        served = kernel_format(kernel)
        if served is not None:
            return served
    raise InvalidInput(
        f"{name!r} is no kernel that tables know; known: {', '.join(GEMM_FORMATS)}, "
        f"{', '.join(word for word, meant in aliases.items() if word != meant)}, "
        "and the formats of the grammar that these run (w8, w4g128, fp8d, …)"
    )


@lru_cache(maxsize=1)
def _grammar() -> frozenset[str]:
    return frozenset(names())


def _ordered(kernels: Iterable[str]) -> list[str]:
    return sorted(set(kernels), key=lambda kernel: (*GEMM_FORMATS, kernel).index(kernel))


def _first(value: Any) -> int:
    """The number of an attribute that may be written as a list of one."""
    return int(value[0] if isinstance(value, (list, tuple)) else value)
