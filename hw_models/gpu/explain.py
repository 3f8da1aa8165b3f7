"""Where each price of a GPU comes from, one row a (site, format)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...space import SearchSpace
from .cells import SOURCES, cells
from .gpu_latency import kernels_of
from .loading import gpu_tables

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("site", "format", "how", "kernel", "m", "n", "k", "share", "ms", "sigma", "source", "table")


def explain(space: SearchSpace, device: str, batch: int = 1, runtime: str | None = None) -> pd.DataFrame:
    """What the latency of every (site, format) on a named GPU was made of.

    Args:
        space: traced sites.
        device: name in ``devices()`` with measured tables.
        batch: samples per forward pass.
        runtime: as in ``price``.

    Returns:
        Columns: site, format, how (matrix product, implicit GEMM, grouped convolution, look-up), kernel, m, n, k of the
        product (0 where there is none; of siblings that run as one kernel the whole), share (of that product's time:
        calls x share of n), ms, sigma, source, table.

    Raises:
        InvalidInput: unknown device.
        NotMeasured: as ``price``.
    """
    import pandas as pd

    tables = gpu_tables(device, runtime)
    kernels = kernels_of(space, tables)
    found = cells(space, tables, kernels, batch)
    asked = found.products
    rows = []
    for index, column in np.argwhere(found.source >= 0).tolist():
        row, kernel = int(asked.row[index]), kernels[column]
        size = (int(asked.m[row]), int(asked.n[row]), int(asked.k[row])) if row >= 0 else (0, 0, 0)
        rows.append(
            (
                space.sites[index].name,
                space.formats[column],
                str(asked.how[index]),
                kernel if row >= 0 else "",
                *size,
                float(asked.share[index]),
                float(found.ms[index, column]),
                float(found.sigma[index, column]),
                SOURCES[int(found.source[index, column])],
                tables.provenance[kernel] if row >= 0 else tables.elementwise.reference,
            )
        )
    return pd.DataFrame(rows, columns=list(_COLUMNS))
