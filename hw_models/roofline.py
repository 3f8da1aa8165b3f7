r"""Latency from a data sheet: the roofline (Williams, Waterman, Patterson 2009, doi:10.1145/1498765.1498785).

.. math:: t = \max\!\left(\frac{2\,\mathrm{MACs}}{P},\; \frac{Q}{B}\right)

with P the dense peak of the compute type, B the memory bandwidth, and Q the bytes of the weight in its container, of
the activations that enter and of those that leave. It is a lower bound: no launch
overhead, no unpacking, no imperfect tile.

How wrong it is: on measured GEMM tables of an H200 its mean absolute percentage error is 52.7 %. An error of that size
below the truth means that the truth is 1 / (1 - 0.527) = 2.1 times the roofline, so the standard deviation
that a price carries is 1.11 times its value, and its interval reaches from the roofline itself upwards.
"""

from __future__ import annotations

import math

from ..errors import NotMeasured
from ..formats import Format
from ..space import SearchSpace, Site
from .devices import Device
from .kernels import batched
from .prices import PriceTable, tabulate

#: Mean absolute percentage error of the roofline, measured on H200 GEMM tables.
MAPE = 0.527
RELATIVE_SIGMA = MAPE / (1 - MAPE)


def roofline_latency(space: SearchSpace, device: Device, batch: int = 1) -> PriceTable:
    """Milliseconds per site and format as the roofline has them.

    Raises:
        NotMeasured: a format of the space has no kernel on the device.
    """
    for name in space.formats:
        compute_type(Format.parse(name), device)
    values = tabulate(space, lambda site, format_: 1e3 * roofline_seconds(site, format_, device, batch))
    return PriceTable(
        metric="latency_ms",
        unit="ms",
        values=values,
        sigma=RELATIVE_SIGMA * values,
        base=0.0,
        source="roofline",
        provenance=(
            f"roofline, not measured: {device.name}, batch {batch}, max(operations / peak, bytes / bandwidth) from "
            f"{device.reference}; the roofline's error was {MAPE:.1%} (MAPE) where it was checked (H200 GEMMs)"
        ),
    )


def roofline_seconds(site: Site, format_: Format, device: Device, batch: int = 1) -> float:
    """Seconds of all calls of a site in a format.

    Raises:
        NotMeasured: the device has no kernel for the format.
    """
    kind = compute_type(format_, device)
    operations = 2 * site.macs * batch
    return max(
        operations / (device.peak_tera[kind] * 1e12),
        bytes_moved(site, format_, kind, batch) / (device.bandwidth_gb_s * 1e9),
    )


def bytes_moved(site: Site, format_: Format, kind: str, batch: int = 1) -> float:
    """Bytes read and written over all calls: weight in its container, activations in and out.

    A look-up reads only the rows that it returns. Integer activations enter in their codes and leave in half
    precision; in the float formats both are as wide as the computation.
    """
    entering = math.prod(batched(site.input_shape, site.samples, batch))
    leaving = math.prod(batched(site.output_shape, site.samples, batch))
    wide = 4 if kind == "fp32" else 2
    if site.kind == "embedding":
        return site.calls * (leaving * format_.weight.container_bits / 8 + 8 * entering + leaving * wide)
    narrow = format_.activation.bits / 8 if format_.quantizes_activations and format_.activation else wide
    weight = format_.stored_bits(site.weight_shape, site.channel_axis) / 8
    return site.calls * (weight + entering * narrow + leaving * wide)


def compute_type(format_: Format, device: Device) -> str:
    """The compute type that a format runs in on a device.

    Weight-only formats are unpacked and computed in bf16 (fp16 where the device has no bf16).

    Raises:
        NotMeasured: the device has no kernel for it.
    """
    wanted: tuple[str, ...]
    if format_.is_wide:
        wanted = ("fp32",) if format_.weight_bits == 32 else (format_.name,)
    elif format_.activation_bits is None:
        wanted = ("bf16", "fp16")
    elif format_.activation_bits == 8:
        wanted = ("int8",)
    elif format_.activation_bits == 4 and format_.weight_bits <= 4:
        wanted = ("int4",)
    else:
        wanted = ()
    for kind in wanted:
        if kind in device.peak_tera:
            return kind
    missing = " or ".join(wanted) if wanted else f"{format_.weight_bits} x {format_.activation_bits} bit"
    raise NotMeasured(
        f"format {format_.name} has no kernel on {device.name} (no {missing} arithmetic in its data sheet; "
        f"it has {', '.join(device.peak_tera)}): drop the format or choose another device"
    )
