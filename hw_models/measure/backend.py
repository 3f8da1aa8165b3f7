"""Backend: what loads and times kernels on one device; the rest of the folder works with any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..kernels import Kernel
from ..rows import KernelRow
from ..timing import MIN_SAMPLES

#: Steps of a progress bar per kernel: one to load it, one per sample.
STEPS = 1 + MIN_SAMPLES


@dataclass(frozen=True)
class Trial:
    """What one first try of a kernel took.

    Attributes:
        load_seconds: to make its data and load it.
        prepare_seconds: of what comes before every run and is not timed.
        run_seconds: of one run, after a warm-up.
        most_repeats: runs that one sample may hold.
    """

    load_seconds: float
    prepare_seconds: float
    run_seconds: float
    most_repeats: int = 1


@dataclass(frozen=True)
class Timed:
    """What timing a group of kernels gave.

    Attributes:
        rows: of the kernels that ran, in order.
        refused: kernels that could not run, with the reason.
    """

    rows: tuple[KernelRow, ...]
    refused: Mapping[Kernel, str] = field(default_factory=dict)


class Backend(Protocol):
    """Times kernels on one device."""

    @property
    def where(self) -> str:
        """Device, hardware, runtime with version, threads or mode: one line."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Room for kernels that are held together."""
        ...

    def digest(self, kernel: Kernel) -> str:
        """The key of a kernel's row."""
        ...

    def refusal(self, kernel: Kernel) -> str | None:
        """Why a kernel cannot run here, as far as is known without trying; ``None`` if nothing is known against it."""
        ...

    def trial(self, kernel: Kernel) -> Trial:
        """Load a kernel and run it a few times, to plan with.

        Raises:
            NotMeasured: it cannot run here.
        """
        ...

    def measure(self, kernels: Sequence[Kernel], seconds: float, advance: Callable[[int], None] | None = None) -> Timed:
        """Time kernels side by side; ``advance`` gets ``STEPS`` per kernel in all."""
        ...


def element_bytes(kind: str) -> float:
    """Bytes of an element of a kernel's weight or input."""
    bits = {"int4": 4, "int8": 8, "uint8": 8, "fp8": 8, "fp16": 16, "bf16": 16, "int64": 64, "none": 0}
    return bits.get(kind, 32) / 8


def work(kernel: Kernel) -> tuple[float, float]:
    """Multiply-accumulates of a kernel, and bytes that it reads and writes (output as wide as 16 bits at least)."""
    inputs, elements = float(np.prod(kernel.input_shape)), float(np.prod(kernel.weight_shape or (0,)))
    wide = max(element_bytes(kernel.activation_format), 2.0)
    if kernel.op == "Gather":
        return 0.0, inputs * (8 + 2 * 4 * kernel.weight_shape[-1])
    if not kernel.weight_shape:
        return 0.0, inputs * (2 + element_bytes(kernel.activation_format))
    positions = _positions(kernel)
    outputs = positions * kernel.channels * (_stride(kernel) if kernel.op == "ConvTranspose" else 1.0)
    read = inputs * element_bytes(kernel.activation_format) + elements * element_bytes(kernel.weight_format)
    return positions * elements, read + outputs * wide


def held_bytes(kernel: Kernel) -> float:
    """Upper estimate of the memory of a loaded kernel: weights while they are packed, input and output."""
    elements, inputs = float(np.prod(kernel.weight_shape or (0,))), float(np.prod(kernel.input_shape))
    if not kernel.weight_shape:
        return 16 * inputs
    outputs = float(np.prod(kernel.input_shape)) if kernel.op == "Gather" else _positions(kernel)
    outputs *= kernel.weight_shape[-1] if kernel.op == "Gather" else kernel.channels
    if kernel.op == "ConvTranspose":
        outputs *= _stride(kernel)
    return 12 * elements + 8 * inputs + 4 * outputs


def _positions(kernel: Kernel) -> float:
    """How often each weight is used: rows of a product, output pixels of a convolution (input pixels if transposed)."""
    if not kernel.op.startswith("Conv"):
        return float(np.prod(kernel.input_shape[:-1]))
    if kernel.op == "ConvTranspose":
        return float(np.prod(kernel.input_shape)) / kernel.input_shape[1]
    attributes = dict(kernel.attributes)
    pads, sizes = attributes["pads"], kernel.input_shape[2:]
    pixels = float(kernel.input_shape[0])
    for axis, size in enumerate(sizes):
        reach = attributes["dilations"][axis] * (attributes["kernel_shape"][axis] - 1) + 1
        padded = size + pads[axis] + pads[axis + len(sizes)]
        pixels *= (padded - reach) // attributes["strides"][axis] + 1
    return pixels


def _stride(kernel: Kernel) -> float:
    return float(np.prod(dict(kernel.attributes)["strides"]))
