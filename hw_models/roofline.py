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
from ..formats import Format, TensorFormat
from ..space import SearchSpace, Site
from .devices import Device
from .kernels import batched
from .prices import PriceTable, tabulate

#: Mean absolute percentage error of the roofline, measured on H200 GEMM tables.
MAPE = 0.527
RELATIVE_SIGMA = MAPE / (1 - MAPE)

_FP8 = ((4, 3), (5, 2))
_SCALE_BITS = {"fp32": 32, "fp16": 16, "e8m0": 8, "e4m3": 8}


def roofline_latency(space: SearchSpace, device: Device, batch: int = 1, why: str = "") -> PriceTable:
    """Milliseconds per site and format as the roofline has them.

    Args:
        space: traced sites.
        device: its data sheet.
        batch: samples per forward pass.
        why: why nothing measured answers, for the provenance.

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
            f"roofline, not measured{f' ({why})' if why else ''}: {device.name}, batch {batch}, "
            f"max(operations / peak, bytes / bandwidth) from "
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

    A look-up reads only the rows that it returns, with their share of the scales. Narrow activations enter in their
    elements (the scales of dynamic ones with them) and leave in half precision; in the float formats both are as wide
    as the computation.
    """
    entering = math.prod(batched(site.input_shape, site.samples, batch))
    leaving = math.prod(batched(site.output_shape, site.samples, batch))
    wide = 4 if kind == "fp32" else 2
    stored = format_.stored_bits(site.weight_shape, site.channel_axis)
    if site.kind == "embedding":
        return site.calls * (leaving * stored / site.elements / 8 + 8 * entering + leaving * wide)
    narrow = 8.0 * wide
    if format_.quantizes_activations and format_.activation is not None:
        narrow = activation_bits(format_.activation, site.input_shape[-1])
    return site.calls * (stored / 8 + entering * narrow / 8 + leaving * wide)


def activation_bits(target: TensorFormat, features: int) -> float:
    """Bits of one element of an activation, with those of the scales of its token or group spread over it."""
    shared = {"token": features, "group": target.group}.get(target.granularity, 0)
    zero_point = 0 if target.symmetric else target.bits
    return target.container_bits + ((_SCALE_BITS[target.scale] + zero_point) / shared if shared else 0.0)


def compute_type(format_: Format, device: Device) -> str:
    """The compute type that a format runs in on a device.

    Weight-only formats are unpacked and computed in bf16 (fp16 where the device has no bf16). Where weight and input
    are both narrow, the product runs in the narrowest arithmetic that holds the elements of both:

    ==========  ================================================================================================
    ``int4``    integers of at most 4 bits on both sides
    ``int8``    integers of at most 8 bits, the input in 4 or 8 (W4A8: weights are unpacked to int8)
    ``fp4``     e2m1 on both sides, with the block scales of the tensor cores (mxfp4, nvfp4)
    ``fp6``     mx elements of at most 6 bits, one side at least in 6
    ``fp8``     e4m3 or e5m2 inputs; weights in these, or in floats and integers of 4 bits that they hold exactly
                (W4A8); mx elements of 8 bits on one side
    ==========  ================================================================================================

    Raises:
        NotMeasured: the device has no arithmetic for it; the message says what is missing.
    """
    wanted = _arithmetic(format_)
    for kind in wanted:
        if kind in device.peak_tera and (not _scales_blocks(format_) or "fp4" in device.peak_tera):
            return kind
    if not wanted:
        missing = "there is no arithmetic for its pair of weight and input"
    elif _scales_blocks(format_) and "fp4" not in device.peak_tera:
        missing = "its tensor cores have no block scales, or its data sheet does not say"
    else:
        missing = f"no {' or '.join(wanted)} arithmetic in its data sheet; it has {', '.join(device.peak_tera)}"
    raise NotMeasured(
        f"format {format_.name} has no kernel on {device.name} ({missing}): drop the format or choose another device"
    )


def _arithmetic(format_: Format) -> tuple[str, ...]:
    """The compute types that a format may run in, best first; none if there is no such arithmetic."""
    weight, activation = format_.weight, format_.activation
    if format_.is_wide:
        return ("fp32",) if weight.bits == 32 else (format_.name,)
    if activation is None:
        return ("bf16", "fp16")
    if activation.number == "int":
        if weight.number != "int" or activation.granularity == "channel" or activation.bits not in (4, 8):
            return ()
        return ("int4",) if activation.bits == 4 and weight.bits <= 4 else ("int8",) if activation.bits == 8 else ()
    if _scales_blocks(format_):
        return _block_arithmetic(weight, activation)
    fp8 = activation.number == "float" and _split(activation) in _FP8 and activation.granularity != "channel"
    exponent, mantissa = _split(weight)
    if weight.number == "float":
        narrow = (exponent <= 4 and mantissa <= 3) or (exponent <= 5 and mantissa <= 2)
    else:
        narrow = weight.number == "int" and weight.bits <= 4
    return ("fp8",) if fp8 and narrow else ()


def _block_arithmetic(weight: TensorFormat, activation: TensorFormat) -> tuple[str, ...]:
    """Arithmetic with scales of blocks in the tensor cores: both sides of one kind of scale."""
    if weight.scale != activation.scale:
        return ()
    if weight.bits == activation.bits == 4:
        return ("fp4",)
    return ("fp6",) if max(weight.bits, activation.bits) == 6 else ("fp8",)


def _scales_blocks(format_: Format) -> bool:
    """Whether the input is in a block format, whose scales the tensor cores apply."""
    return format_.activation is not None and format_.activation.scale in ("e8m0", "e4m3")


def _split(target: TensorFormat) -> tuple[int, int]:
    return target.exponent_bits, target.mantissa_bits
