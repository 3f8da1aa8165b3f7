"""TableInfo: what one table has of one device, and where it comes from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..gemm import GEMM_FORMATS
from . import aiconfigurator
from .kernel_formats import served_formats
from .schema import QUANTIZES
from .table import LatencyTable

if TYPE_CHECKING:
    import pandas as pd

Origin = Literal["aiconfigurator", "package", "user"]
Range = tuple[int, int]
_RUNTIME_NAMES = {"trtllm": "TensorRT-LLM", "sglang": "SGLang", "vllm": "vLLM"}


@dataclass(frozen=True)
class TableInfo:
    """What one table has of one device in one version of a runtime.

    Attributes:
        device: name in ``devices()``.
        runtime: such as trtllm or torch.
        version: of the runtime.
        formats: kernel format -> rows, in the order of ``gemm.GEMM_FORMATS``.
        rows: of products in these formats.
        others: rows that are no prices of products: convolutions, conversions, finer formats, unstable rows, eager
            ones beside graphs.
        quantizes: the formats whose times include quantizing the input.
        m: smallest and largest.
        n: likewise.
        k: likewise.
        statistic: what a time is: ``median`` or ``mean``.
        mode: ``graph``, ``eager``, both, or empty where that was not recorded.
        dates: first and last day of measurement, where recorded.
        source: who measured.
        licence: of the rows, or empty.
        digest: sha256 of the file, 16 hex digits.
        origin: which of the three places it is in.
        path: the file.
    """

    device: str
    runtime: str
    version: str
    formats: tuple[tuple[str, int], ...]
    rows: int
    others: int
    quantizes: tuple[str, ...]
    m: Range
    n: Range
    k: Range
    statistic: str
    mode: str
    dates: tuple[str, ...]
    source: str
    licence: str
    digest: str
    origin: Origin
    path: Path

    @property
    def provenance(self) -> str:
        """One line for people."""
        name = _RUNTIME_NAMES.get(self.runtime, self.runtime)
        licence = f" ({self.licence})" if self.licence else ""
        dates = f", {' to '.join(self.dates)}" if self.dates else ""
        what = ", ".join(filter(None, (self.statistic, self.mode)))
        return (
            f"measured: {self.device}, {' '.join(filter(None, (name, self.version)))}, {self.rows:,} rows ({what}), "
            f"{self.source}{licence}{dates}, digest {self.digest}"
        )

    @property
    def grammar(self) -> tuple[str, ...]:
        """The formats of the grammar that its kernels run."""
        return tuple(name for kernel, _ in self.formats for name in served_formats(kernel))


@cache
def packaged(parts: tuple[aiconfigurator.Part, ...], source: str) -> tuple[TableInfo, ...]:
    """One entry for each file of ``aiconfigurator-core``, in the order of the parts."""
    by_path: dict[Path, list[aiconfigurator.Part]] = {}
    for part in parts:
        by_path.setdefault(part.path, []).append(part)
    return tuple(
        TableInfo(
            device=found[0].device,
            runtime=found[0].runtime,
            version=found[0].version,
            formats=tuple(sorted(((part.format, part.rows) for part in found), key=lambda x: GEMM_FORMATS.index(x[0]))),
            rows=sum(part.rows for part in found),
            others=0,
            quantizes=tuple(part.format for part in found if part.format in aiconfigurator.quantizing(part.runtime)),
            **aiconfigurator.ranges(path),
            statistic="mean",
            mode="",
            dates=aiconfigurator.collected(path),
            source=source,
            licence=aiconfigurator.LICENCE,
            digest=_file_digest(path),
            origin="aiconfigurator",
            path=path,
        )
        for path, found in by_path.items()
    )


def infos(path: Path, origin: Origin) -> tuple[TableInfo, ...]:
    """One entry for each device and version of a runtime in a parquet file.

    Raises:
        InvalidInput: the file is no latency table.
    """
    state = path.stat()
    return _described(path, origin, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=256)
def _described(path: Path, origin: Origin, modified: int, size: int) -> tuple[TableInfo, ...]:
    """``infos``, read again when the file was modified."""
    table, digest = LatencyTable.from_parquet(path), _file_digest(path)
    frame = table.frame.assign(kernel=table.kernels, priced=table.priced)
    grouped = frame.groupby(["device", "runtime", "runtime_version"], sort=True)
    return tuple(_info(mine, digest, origin, path) for _, mine in grouped)


def _info(mine: pd.DataFrame, digest: str, origin: Origin, path: Path) -> TableInfo:
    products = mine[mine["priced"]]
    counts = products["kernel"].value_counts()
    inside = products["attributes"].str.contains(QUANTIZES, regex=False)
    dates = sorted(set(mine["date"]) - {""})
    first = mine.iloc[0]
    return TableInfo(
        device=first["device"],
        runtime=first["runtime"],
        version=first["runtime_version"],
        formats=tuple((kernel, int(counts[kernel])) for kernel in GEMM_FORMATS if kernel in counts),
        rows=len(products),
        others=len(mine) - len(products),
        quantizes=tuple(kernel for kernel in GEMM_FORMATS if kernel in set(products["kernel"][inside])),
        m=_range(products["m"]),
        n=_range(products["n"]),
        k=_range(products["k"]),
        statistic="mean" if mine["median_ms"].isna().all() else "median",
        mode=" and ".join(sorted(set(products["mode"]) - {""})),
        dates=tuple(dict.fromkeys([*dates[:1], *dates[-1:]])),
        source=", ".join(dict.fromkeys(mine["source"])),
        licence=", ".join(dict.fromkeys(filter(None, mine["licence"]))),
        digest=digest,
        origin=origin,
        path=path,
    )


def _range(column: pd.Series[int]) -> Range:
    return (int(column.min()), int(column.max())) if len(column) else (0, 0)


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
