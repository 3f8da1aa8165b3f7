"""Milliseconds of every (site, format) on a GPU, each with its error and how it is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import NotMeasured
from ...formats import Format
from ...space import SearchSpace, Site
from ..kernels import batched
from ..prices import Source
from ..roofline import RELATIVE_SIGMA, bytes_moved
from .device_tables import GpuTables
from .products import GROUPED, IMPLICIT, LOOKUP, MATRIX, Products, products

#: How a cell is known, best first.
SOURCES: tuple[Source, ...] = ("measured", "predicted", "model")
_MEASURED, _PREDICTED, _MODEL = range(len(SOURCES))
#: From this share of a time on, a weaker source gives the whole its name.
WEAKEST_SHARE = 0.1
#: Kernel formats that libraries convolve in (cuDNN, TensorRT); weight-only and block formats are for matrices.
CONVOLUTIONS = ("fp32", "tf32", "fp16", "bf16", "fp8", "w8a8")


@dataclass(frozen=True)
class Cells:
    """The cells of a space; all arrays [sites, formats], NaN (source -1) where a site does not offer a format.

    Attributes:
        ms: milliseconds of a forward pass.
        sigma: standard deviation of each.
        source: index into ``SOURCES``.
        kernels: per format, the kernel format that it runs in.
        products: what the sites were priced as.
    """

    ms: NDArray[np.float64]
    sigma: NDArray[np.float64]
    source: NDArray[np.int64]
    kernels: tuple[str, ...]
    products: Products


def cells(space: SearchSpace, tables: GpuTables, kernels: tuple[str, ...], batch: int = 1) -> Cells:
    """Price every (site, format).

    Args:
        space: traced sites.
        tables: of the device.
        kernels: per format of the space, the kernel format that it runs in.
        batch: samples per forward pass.

    Raises:
        NotMeasured: a site offers a format that has no kernel for it or was not measured on the device.
    """
    asked = products(space, batch)
    shape = (len(space.sites), len(space.formats))
    found = Cells(np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, -1), kernels, asked)
    allowed, inputs = space.allowed, _inputs(space, asked, batch)
    for column, (name, kernel) in enumerate(zip(space.formats, kernels, strict=True)):
        target = Format.parse(name)
        offered = allowed[:, column]
        _refuse_convolutions(space, offered & np.isin(asked.how, (IMPLICIT, GROUPED)), name, kernel, tables)
        _fill_products(found, column, offered, target, inputs, tables)
        for index in np.flatnonzero(offered & (asked.how == GROUPED)).tolist():
            _set(found, index, column, _grouped_ms(space.sites[index], target, tables, batch), RELATIVE_SIGMA, _MODEL)
        for index in np.flatnonzero(offered & (asked.how == LOOKUP)).tolist():
            site = space.sites[index]
            moved = np.array([bytes_moved(site, target, "bf16", batch) / site.calls])
            law = tables.elementwise
            _set(found, index, column, site.calls * float(law.ms(moved)[0]), law.error, _MODEL)
    return found


def weakest(ms: NDArray[np.float64], source: NDArray[np.int64]) -> int:
    """The weakest source that at least ``WEAKEST_SHARE`` of the time comes from, weaker ones counted with it."""
    known = source >= 0
    total = float(ms[known].sum())
    weak = [code for code in range(len(SOURCES)) if float(ms[known & (source >= code)].sum()) >= WEAKEST_SHARE * total]
    return max(weak, default=_MEASURED)


def _fill_products(
    found: Cells,
    column: int,
    offered: NDArray[np.bool_],
    target: Format,
    inputs: NDArray[np.float64],
    tables: GpuTables,
) -> None:
    """The sites that run products: their share of the product, with the quantization of its input."""
    asked, kernel = found.products, found.kernels[column]
    sites = np.flatnonzero(offered & (asked.row >= 0))
    if not len(sites):
        return
    rows, back = np.unique(asked.row[sites], return_inverse=True)
    m, n, k = asked.m[rows], asked.n[rows], asked.k[rows]
    # a fused product needs every member's width, so that its rows are asked for as they stand
    times = tables.gemms.times(kernel, m, n, k)
    ms, sigma = times.ms.copy(), times.sigma.copy()
    source = np.where(times.measured, _MEASURED, _PREDICTED)
    if target.quantizes_activations:
        added, error = _quantization(kernel, target, (m * k).astype(np.float64), inputs[rows], tables)
        modelled = np.abs(added) > WEAKEST_SHARE * ms
        ms = np.maximum(ms + added, _least_ms(kernel, m, n, k, tables))
        sigma = sigma + error
        difference = _PREDICTED if kernel in tables.inside else _MODEL
        source = np.where(modelled, np.maximum(source, difference), source)
    found.ms[sites, column] = ms[back] * asked.share[sites]
    found.sigma[sites, column] = sigma[back] * asked.share[sites]
    found.source[sites, column] = source[back]


def _quantization(
    kernel: str, target: Format, inside: NDArray[np.float64], entering: NDArray[np.float64], tables: GpuTables
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What quantizing the input adds to the time of the kernel (or takes off it), and the error of that.

    A kernel of ``tables.inside`` has quantized the ``m k`` elements of its input with a scale that it looked for. A
    convolution's input has fewer elements than its implicit product, and a static scale needs no looking for.

    Args:
        kernel: format of the kernel.
        target: format of the site.
        inside: elements that the measured kernel quantizes [rows].
        entering: elements that enter the site [rows].
        tables: of the device.
    """
    moved = 3.0  # bytes an element: 16 bits read, 8 written
    laws = [tables.quantize]
    if kernel not in tables.inside:
        added = tables.quantize.ms(moved * entering)
        return added, tables.quantize.error * added
    if kernel != "fp8":  # blocks: scales are found on the way, and only matrices have them
        return np.zeros_like(inside), np.zeros_like(inside)
    added, error = np.zeros_like(inside), np.zeros_like(inside)
    if tables.find_scale is not None:
        laws.append(tables.find_scale)
    for law in laws:
        needed = law is tables.quantize or (target.activation is not None and target.activation.dynamic)
        taken = law.ms(moved * inside)
        given = law.ms(moved * entering) if needed else np.zeros_like(inside)
        added = added + given - taken
        error = error + law.error * np.abs(given - taken)
    return added, error


def _least_ms(
    kernel: str, m: NDArray[np.int64], n: NDArray[np.int64], k: NDArray[np.int64], tables: GpuTables
) -> NDArray[np.float64]:
    """The roofline of products in 8 bits: what no difference of measured times may fall below."""
    peak = tables.device.peak_tera["int8" if kernel == "w8a8" else "fp4" if kernel == "nvfp4" else "fp8"] * 1e9
    bits = 4 if kernel == "nvfp4" else 8
    moved = (bits / 8) * (m * k + n * k).astype(np.float64) + 2.0 * (m * n)
    compute = 2.0 * m.astype(np.float64) * n * k / peak
    return np.maximum(compute, moved / (tables.device.bandwidth_gb_s * 1e6))


def _grouped_ms(site: Site, target: Format, tables: GpuTables, batch: int) -> float:
    """A grouped convolution by its roofline on vector units: operations, or bytes as element-wise kernels move them."""
    compute = 2e3 * site.macs * batch / (tables.device.peak_tera["fp32"] * 1e12)
    moved = bytes_moved(site, target, "bf16", batch) / site.calls
    return max(compute, site.calls * float(tables.elementwise.ms(np.array([moved]))[0]))


def _inputs(space: SearchSpace, asked: Products, batch: int) -> NDArray[np.float64]:
    """Elements that enter each product, those of a fused one once."""
    entering = np.zeros(len(asked.m))
    for site, row, how in zip(space.sites, asked.row, asked.how, strict=True):
        if how == MATRIX:
            entering[row] = float(asked.m[row]) * float(asked.k[row])
        elif how == IMPLICIT:
            entering[row] = math.prod(batched(site.input_shape, site.samples, batch))
    return entering


def _set(found: Cells, site: int, column: int, ms: float, relative_sigma: float, source: int) -> None:
    found.ms[site, column], found.sigma[site, column] = ms, relative_sigma * ms
    found.source[site, column] = source


def _refuse_convolutions(
    space: SearchSpace, where: NDArray[np.bool_], name: str, kernel: str, tables: GpuTables
) -> None:
    """Raise if a convolution offers a format that there are only matrix kernels for."""
    if kernel in CONVOLUTIONS or not where.any():
        return
    first = space.sites[int(np.flatnonzero(where)[0])].name
    offer = ", ".join(known for known in tables.gemms.formats if known in CONVOLUTIONS)
    raise NotMeasured(
        f"format {name}: its {kernel} kernels on {tables.device.name} are for matrices, not for the convolution "
        f"{first}; offer formats of the kernels {offer} there, or exclude it"
    )
