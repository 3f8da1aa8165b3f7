r"""Latency of a model on a named GPU: measured or predicted products, with what is quantized around them.

.. math:: t_i(f) = c_i \left[ T_{f}(m_i, n_i, k_i) + \Delta q_f \right]

with c the calls of a site, T the time of its matrix product in the kernel of the format (looked up, else predicted)
and :math:`\Delta q` what quantizing the input adds beyond what the measured kernel does already. Embeddings are
look-ups, and grouped convolutions are bound by operations and bytes. The base is the time of the
operators outside the sites. The fixed time of a kernel (its launch inside a CUDA graph) is in what was measured.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from ...formats import Format
from ...space import SearchSpace
from ..cost_model import Question
from ..prices import PriceTable, Source
from ..tables.kernel_formats import required_kernel
from .cells import SOURCES, Cells, cells, weakest
from .device_tables import GpuTables
from .loading import gpu_tables
from .operators import Operators, operators
from .products import GROUPED, IMPLICIT, LOOKUP

#: Raise when prices are put together differently: those that a store keeps are then not reused.
RECIPE = 1
_MODEL = SOURCES.index("model")


def gpu_latency(space: SearchSpace, question: Question) -> PriceTable:
    """Milliseconds per site and format on a named GPU; see the module.

    Raises:
        InvalidInput: unknown runtime, or the package with the tables is not installed.
        NotMeasured: a site offers a format that the device has no kernel or no measurement for.
    """
    return assembled(space, gpu_tables(question.device, question.runtime), question.batch)


def assembled(space: SearchSpace, tables: GpuTables, batch: int = 1) -> PriceTable:
    """The price table of a space from the tables of a device.

    Args:
        space: traced sites.
        tables: of the device.
        batch: samples per forward pass.

    Raises:
        NotMeasured: a site offers a format that the device has no kernel or no measurement for.
    """
    kernels = kernels_of(space, tables)
    found = cells(space, tables, kernels, batch)
    others = operators(space, tables.elementwise, batch)
    base, base_sigma = (others.ms, others.sigma) if others else (0.0, 0.0)
    source = _named(found, base)
    return PriceTable(
        metric="latency_ms",
        unit="ms",
        values=found.ms,
        sigma=found.sigma + base_sigma / len(space.sites),  # the errors of the sites add up to that of the base
        base=base,
        source=source,
        provenance=_provenance(space, found, others, tables, batch, source),
    )


def kernels_of(space: SearchSpace, tables: GpuTables) -> tuple[str, ...]:
    """Per format of the space, the kernel format that it runs in on the device.

    Embeddings are look-ups in every format; a format that only they offer needs no kernel of products.

    Raises:
        NotMeasured: a format has no kernel, or none that was measured on the device.
    """
    looked_up = {name for site in space.sites if site.kind == "embedding" for name in site.formats}
    computed = {name for site in space.sites if site.kind != "embedding" for name in site.formats}
    return tuple(
        "look-up" if name in looked_up - computed else required_kernel(name, tables.device.name, tables.gemms.formats)
        for name in space.formats
    )


def _named(found: Cells, base: float) -> Source:
    """The weakest source that at least a tenth of the time comes from in some uniform configuration."""
    columns = [
        (np.append(ms, base), np.append(source, _MODEL)) for ms, source in zip(found.ms.T, found.source.T, strict=True)
    ]
    return SOURCES[max(weakest(ms, source) for ms, source in columns)]


def _provenance(
    space: SearchSpace, found: Cells, others: Operators | None, tables: GpuTables, batch: int, source: str
) -> str:
    """Device, tables, how many cells are known in which way, and what to be careful with."""
    counts = Counter(SOURCES[code] for code in found.source[found.source >= 0])
    known = {name: counts[name] for name in SOURCES if counts[name]}
    notes = [
        f"{source}: {tables.device.name}, batch {batch}, {_tables(found, tables)}",
        f"{sum(known.values())} prices: " + ", ".join(f"{count} {name}" for name, count in known.items()),
        *_of_sites(found),
        *_of_kernels(space, found, tables),
        "kernels as in replays of a CUDA graph, without host overhead",
        f"{others.kernels} operators outside the sites: {others.ms:.4g} ms by {tables.elementwise.reference}"
        if others
        else "operators outside the sites not counted, they were not traced",
    ]
    return "; ".join(notes)


def _tables(found: Cells, tables: GpuTables) -> str:
    """The tables that answered, with the kernels that they answered for."""
    used = [kernel for kernel in dict.fromkeys(found.kernels) if kernel in tables.provenance]
    by_table: dict[str, list[str]] = {}
    for kernel in used:
        by_table.setdefault(tables.provenance[kernel], []).append(kernel)
    return " and ".join(f"{', '.join(kernels)} from {told}" for told, kernels in by_table.items())


def _of_sites(found: Cells) -> list[str]:
    """How sites were priced that are no plain products."""
    sites = Counter(found.products.how)
    told = {
        IMPLICIT: "convolutions as implicit GEMM, where only products were measured",
        GROUPED: "grouped convolutions by operations and bytes, no products and never measured",
        LOOKUP: "look-ups by the bytes they move",
    }
    return [f"{sites[how]} {text}" for how, text in told.items() if sites[how]]


def _of_kernels(space: SearchSpace, found: Cells, tables: GpuTables) -> list[str]:
    """What to know of the times of the kernels."""
    kernels, notes = set(found.kernels), []
    if "w8a8" in kernels - tables.inside:
        notes.append(f"quantizing int8 inputs by {tables.quantize.reference}")
    static = any(
        kernel == "fp8" and Format.parse(name).needs_ranges
        for name, kernel in zip(space.formats, found.kernels, strict=True)
    )
    if static and "fp8" in tables.inside and tables.find_scale is None:
        notes.append("static fp8 scales priced as dynamic ones: the difference was not measured")
    single = sorted(kernels & set(tables.gemms.singly_timed))
    if single:
        notes.append(f"{', '.join(single)} timed singly in steps of 1 µs, small products compare with care")
    if len(kernels & {"fp32", "fp16", "bf16"}) > 1:
        notes.append("casts between neighbours in unlike floats not counted")
    return notes
