"""LatencyTable: many measured kernels in columns, with where they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from ...files import replacing
from ..gemm import GEMM_FORMATS, MeasuredGemms
from ..rows import MeasuredTable
from .kernel_formats import kernel_of_row
from .schema import PRODUCTS, conform, price_ms

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LatencyTable:
    """Measured kernels of one or more devices.

    Attributes:
        frame: one row a kernel, in the schema (``schema.conform``). Not to be changed.
    """

    frame: pd.DataFrame

    @staticmethod
    def from_frame(frame: pd.DataFrame, where: str = "the table") -> LatencyTable:
        """A table from columns named as in ``KernelRow``.

        Raises:
            InvalidInput: as ``schema.conform``.
        """
        return LatencyTable(conform(frame, where))

    @staticmethod
    def from_rows(rows: MeasuredTable) -> LatencyTable:
        """A table from single rows."""
        return LatencyTable(conform(rows.to_frame(), "the rows"))

    @staticmethod
    def from_parquet(path: str | Path) -> LatencyTable:
        """Read what ``to_parquet`` or ``MeasuredTable.to_parquet`` wrote, of this or an older schema.

        Raises:
            InvalidInput: the file is missing or is not such a table.
        """
        return LatencyTable(conform(read_parquet(path), str(path)))

    def to_parquet(self, path: str | Path) -> None:
        """Write the table (to the side, synced, then renamed)."""
        with replacing(path) as side:
            self.frame.to_parquet(side, index=False, compression="zstd")

    def rows(self) -> MeasuredTable:
        """The same as single rows."""
        return MeasuredTable.from_frame(self.frame)

    @cached_property
    def kernels(self) -> NDArray[np.str_]:
        """The kernel of each row (``kernel_formats.kernel_of_row``)."""
        keys = self.frame[["weight_format", "activation_format", "attributes"]]
        codes, groups = keys.groupby(list(keys), sort=False, dropna=False).ngroup(), keys.drop_duplicates()
        names = np.array([kernel_of_row(*row) for row in groups.itertuples(index=False)], dtype=np.str_)
        return names[codes.to_numpy()] if len(keys) else names

    @cached_property
    def priced(self) -> NDArray[np.bool_]:
        """Which rows are prices of products: stable, in the kernels of ``gemm.GEMM_FORMATS``, each product once.

        Where a kernel was timed in graphs and eagerly, the graphs count; of the same product with a cold and a warm
        cache the cold one, of more than one (other attributes, other drivers) the last row.
        """
        frame = self.frame
        able = frame["op"].isin(PRODUCTS).to_numpy() & np.isin(self.kernels, GEMM_FORMATS) & frame["stable"].to_numpy()
        kinds = ["device", "runtime", "runtime_version", "kernel"]
        seen = frame[["device", "runtime", "runtime_version", "m", "n", "k", "threads"]].reset_index(drop=True)
        graph, cold = (frame["mode"] == "graph").to_numpy(), (frame["cache"] == "cold").to_numpy()
        seen = seen.assign(kernel=self.kernels, graph=graph, cold=cold)[able]
        seen = seen[seen["graph"] == seen.groupby(kinds)["graph"].transform("max")]
        ordered = seen.sort_values("cold", kind="stable")
        kept = ordered.drop_duplicates([*kinds, "threads", "m", "n", "k"], keep="last").index
        mask = np.zeros(len(frame), dtype=np.bool_)
        mask[kept.to_numpy()] = True
        return mask

    def gemms(self, device: str | None = None) -> MeasuredGemms:
        """The products that have a price (``priced``), in the order of the rows.

        Args:
            device: only those of this device.
        """
        frame, mine = self.frame, self.priced
        if device is not None:
            mine = mine & (frame["device"] == device).to_numpy()
        m, n, k = (frame[name].to_numpy()[mine] for name in ("m", "n", "k"))
        names = frame["device"].to_numpy()[mine].astype(np.str_)
        return MeasuredGemms(names, self.kernels[mine], m, n, k, price_ms(frame)[mine])

    @property
    def digest(self) -> str:
        """Content hash of the rows, whatever their order (sha256, 16 hex digits)."""
        return content_digest(self.frame)


def content_digest(frame: pd.DataFrame) -> str:
    """sha256 over the sorted hashes of a frame's rows, 16 hex digits."""
    import pandas as pd

    hashes = np.sort(pd.util.hash_pandas_object(frame, index=False).to_numpy())
    return hashlib.sha256(hashes.tobytes()).hexdigest()[:16]


def read_parquet(path: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The frame of a parquet file.

    Raises:
        InvalidInput: the file is missing or not parquet.
    """
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(path, columns=list(columns) if columns else None)
    except FileNotFoundError:
        raise InvalidInput(f"no table of measurements at {path}") from None
    except (pa.ArrowInvalid, OSError) as cause:
        raise InvalidInput(f"{path} is not a parquet file of measurements: {cause}") from None
