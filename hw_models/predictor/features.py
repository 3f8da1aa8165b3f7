r"""What is known of a matrix product before it is measured: its roofline, and numbers that say how well it tiles.

The roofline (Williams, Waterman, Patterson 2009, doi:10.1145/1498765.1498785) of ``[m, k] x [k, n]`` is

.. math:: t = \max\!\left(\frac{2mnk}{P},\; \frac{b_a mk + b_w nk + b_o mn}{B}\right)

with P the dense peak of the arithmetic that the kernel computes in, B the memory bandwidth and b the bytes of an
element of the input, the weight (its scales included) and the output.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput, NotMeasured
from ..devices import Device, device
from ..gemm import GEMM_FORMATS, Gemms


@dataclass(frozen=True)
class KernelTraits:
    """What a kernel of matrix products moves and computes in.

    Attributes:
        arithmetic: compute types in a data sheet, best first; the first that the device has counts.
        entering: bytes of an element of the input.
        weight: bytes of an element of the weight with its scales.
        leaving: bytes of an element of the output.
    """

    arithmetic: tuple[str, ...]
    entering: float
    weight: float
    leaving: float


TRAITS = {
    "fp32": KernelTraits(("fp32",), 4, 4, 4),
    "tf32": KernelTraits(("tf32",), 4, 4, 4),
    "fp16": KernelTraits(("fp16",), 2, 2, 2),
    "bf16": KernelTraits(("bf16",), 2, 2, 2),
    "fp8": KernelTraits(("fp8",), 1, 1, 2),
    # one float32 scale for 128 inputs and for 128 x 128 weights
    "fp8_block": KernelTraits(("fp8",), 1 + 4 / 128, 1 + 4 / 128**2, 2),
    # one 8-bit scale for 16 elements
    "nvfp4": KernelTraits(("fp4",), 0.5 + 1 / 16, 0.5 + 1 / 16, 2),
    "int8_wo": KernelTraits(("bf16", "fp16"), 2, 1, 2),
    "int4_wo": KernelTraits(("bf16", "fp16"), 2, 0.5, 2),
    "w8a8": KernelTraits(("int8",), 1, 1, 2),
}


def bounds_ms(gemms: Gemms) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The two sides of the roofline, arithmetic and memory, in ms: float64 arrays [rows].

    Raises:
        InvalidInput: no such device, no such format, or a size below 1.
        NotMeasured: the data sheet of the device lacks the arithmetic of a format.
    """
    if len(gemms) and min(gemms.m.min(), gemms.n.min(), gemms.k.min()) < 1:
        raise InvalidInput("a product has m, n or k below 1: give sizes of at least 1")
    m, n, k = (side.astype(np.float64) for side in (gemms.m, gemms.n, gemms.k))
    compute, memory = np.empty(len(gemms)), np.empty(len(gemms))
    for (device_name, format_), rows in groups(gemms).items():
        if format_ not in TRAITS:
            raise InvalidInput(f"unknown kernel format {format_!r}: give one of {', '.join(GEMM_FORMATS)}")
        traits, sheet = TRAITS[format_], device(device_name)
        peak = _peak(traits, format_, sheet)
        a, b, c = m[rows], n[rows], k[rows]
        compute[rows] = 2 * a * b * c / (peak * 1e9)
        moved = traits.entering * a * c + traits.weight * b * c + traits.leaving * a * b
        memory[rows] = moved / (sheet.bandwidth_gb_s * 1e6)
    return compute, memory


def roofline_ms(gemms: Gemms) -> NDArray[np.float64]:
    """The roofline in ms, float64 array [rows]; raises as ``bounds_ms`` does."""
    return np.maximum(*bounds_ms(gemms))


def groups(gemms: Gemms) -> dict[tuple[str, str], NDArray[np.int64]]:
    """Rows of every (device, format) that occurs."""
    devices, device_at = np.unique(gemms.device, return_inverse=True)
    formats, format_at = np.unique(gemms.format, return_inverse=True)
    found: dict[tuple[str, str], NDArray[np.int64]] = {}
    codes = device_at * len(formats) + format_at
    for code in np.unique(codes):
        key = (str(devices[code // len(formats)]), str(formats[code % len(formats)]))
        found[key] = np.flatnonzero(codes == code)
    return found


def features(gemms: Gemms, law: NDArray[np.float64], remainder: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inputs of the regression, float64 array [rows, features].

    Logarithms of the sizes and of their pairwise products, both sides of the roofline and their ratio, the alignment
    of m, the number of output tiles for four usual tile sizes and, for each, how much larger the tiles are than the
    output. (Waves over the multiprocessors are steps in the number of tiles, which trees find themselves.) Then what
    is foretold without the regression.

    Args:
        gemms: the products.
        law: log ms of the law [rows].
        remainder: what other weight shapes leave over it [rows].
    """
    compute, memory = bounds_ms(gemms)
    m, n, k = (side.astype(np.float64) for side in (gemms.m, gemms.n, gemms.k))
    columns = [np.log(m), np.log(n), np.log(k), np.log(m * n), np.log(m * k), np.log(n * k)]
    columns += [np.log(compute), np.log(memory), np.log(compute / memory)]
    columns += [(gemms.m % 4 == 0).astype(np.float64), (gemms.m % 16 == 0).astype(np.float64), m % 128]
    for rows, across in ((64, 64), (128, 128), (128, 256), (256, 128)):
        tiles = np.ceil(m / rows) * np.ceil(n / across)
        columns += [np.log(tiles), np.log(tiles * rows * across / (m * n))]
    return np.stack([*columns, law, remainder], axis=1)


def _peak(traits: KernelTraits, format_: str, sheet: Device) -> float:
    for kind in traits.arithmetic:
        if kind in sheet.peak_tera:
            return sheet.peak_tera[kind]
    raise NotMeasured(
        f"format {format_} has no kernel on {sheet.name} (no {' or '.join(traits.arithmetic)} arithmetic in its data "
        "sheet): drop the format or choose another device"
    )
