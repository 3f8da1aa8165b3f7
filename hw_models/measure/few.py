"""Which few kernels of a grid to time on a device that resembles measured ones (``transfer.next_shapes``)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import InvalidInput, NotMeasured
from ..devices import device
from ..gemm import GEMM_FORMATS, Gemms, MeasuredGemms
from ..kernels import Kernel
from ..onnx_runner import product_sizes
from ..rows import MeasuredTable
from ..tables.kernel_formats import kernel_of_row
from ..tables.registry import gemms
from ..transfer import next_shapes
from .catalogue import format_of


def few(kernels: Sequence[Kernel], name: str, like: Sequence[str], count: int, known: MeasuredTable) -> list[Kernel]:
    """The products whose measurement says most about all of them.

    Products in formats that no table of the other devices has are left out, as are convolutions and conversions.

    Args:
        kernels: what could be timed.
        name: of this device, whose data sheet must be known.
        like: devices with tables.
        count: how many there shall be, those among them that are known already included.
        known: what was measured already, on this device among others.

    Raises:
        InvalidInput: no data sheet of this device, or no product to choose from.
        NotMeasured: there is no table of a device in ``like``.
    """
    sheet = device(name)
    sources = {other: gemms(other) for other in like if other != name}
    if not sources:
        raise InvalidInput("--few needs --like DEVICE: one or more other devices with tables (`bitfront devices`)")
    measured = {kind for table in sources.values() for kind in np.unique(table.format)}
    offered = [kernel for kernel in kernels if format_of(kernel) in measured and kernel.op == "Gemm"]
    if not offered:
        raise NotMeasured(
            f"--few: none of the kernels is a product in a format that {', '.join(sources)} measured "
            f"({', '.join(sorted(measured))})"
        )
    samples = _samples(known, name)
    done = set() if samples is None else _keys(samples)
    fresh = [kernel for kernel in offered if (format_of(kernel), *product_sizes(kernel)) not in done]
    missing = min(count - (len(offered) - len(fresh)), len(fresh))
    if missing < 1:
        return []
    return [fresh[index] for index in next_shapes(sources, sheet, _columns(fresh, name), samples, missing)]


def _columns(kernels: Sequence[Kernel], name: str) -> Gemms:
    m, n, k = np.array([product_sizes(kernel) for kernel in kernels], dtype=np.int64).T
    return Gemms(np.full(len(kernels), name), np.array([format_of(kernel) for kernel in kernels]), m, n, k)


def _samples(known: MeasuredTable, name: str) -> MeasuredGemms | None:
    """The products among known rows of the device, graphs before eager calls."""
    rows = {}
    for row in sorted(known, key=lambda row: row.mode == "graph"):
        kind = kernel_of_row(row.weight_format, row.activation_format, row.attributes)
        if row.device == name and row.m and kind in GEMM_FORMATS:
            rows[kind, row.m, row.n, row.k] = row.median_ms
    if not rows:
        return None
    kinds, sizes = [key[0] for key in rows], np.array([key[1:] for key in rows], dtype=np.int64)
    times = np.array(list(rows.values()), dtype=np.float64)
    m, n, k = sizes.T
    return MeasuredGemms(np.full(len(rows), name), np.array(kinds), m, n, k, times)


def _keys(samples: MeasuredGemms) -> set[tuple[str, int, int, int]]:
    columns = (samples.format.tolist(), samples.m.tolist(), samples.n.tolist(), samples.k.tolist())
    return set(zip(*columns, strict=True))
