"""What is known of one GPU: times of products, of element-wise kernels, of quantizing inputs; loaded once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..devices import Device
from .elementwise import ElementwiseLaw
from .gemm_times import GemmTimes

#: Share of the peak memory bandwidth that an element-wise kernel reaches, and the error of a law made of it: constants
#: of ``systems/*.yaml`` of aiconfigurator-core (``mem_bw_empirical_scaling_factor``); 4 to 40 % off where they can be
#: checked against measured laws.
ASSUMED_EFFICIENCY, ASSUMED_ERROR = 0.8, 0.4


@dataclass(frozen=True)
class GpuTables:
    """What latency on one GPU is put together from.

    Attributes:
        device: its data sheet.
        gemms: times of products.
        elementwise: law of element-wise kernels.
        quantize: law of rounding an input to 8 bits with a scale that is known.
        find_scale: law of what finding the scale adds, or ``None`` where no difference could be measured.
        inside: kernel formats whose times hold the quantization of the input (with finding its scale).
        provenance: kernel format -> its table in one line.
    """

    device: Device
    gemms: GemmTimes
    elementwise: ElementwiseLaw
    quantize: ElementwiseLaw
    find_scale: ElementwiseLaw | None
    inside: frozenset[str]
    provenance: Mapping[str, str]


def assumed_law(device: Device, floor_ms: float) -> ElementwiseLaw:
    """The law of a device on which no element-wise kernel was measured: its bandwidth, and the shortest kernel.

    Args:
        device: its data sheet.
        floor_ms: the shortest measured time of any kernel.
    """
    rate = device.bandwidth_gb_s * 1e6 * ASSUMED_EFFICIENCY
    return ElementwiseLaw(
        floor_ms,
        rate,
        float("inf"),
        rate,
        ASSUMED_ERROR,
        f"an assumed law: {ASSUMED_EFFICIENCY:.0%} of {device.bandwidth_gb_s:g} GB/s after the shortest kernel",
    )
