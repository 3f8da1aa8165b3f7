"""The registry of latency tables: what was measured on which device, by whom, and which table answers.

Tables come from three places: the parquet files in this package's ``tables/data``, ``aiconfigurator-core`` where it is
installed, and the user's folder (``$BITFRONT_TABLES``, else ``~/.cache/bitfront/tables``; ``add`` puts them there).

For each kernel format one table answers: tables of different runtimes were timed differently and are not mixed. Without
a runtime these are tried in turn: aiconfigurator's selection (TensorRT-LLM, SGLang, vLLM; the newest version), then of
the package's and the user's tables the one with the most rows. With a runtime only its tables count, those of the user
first.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...errors import NotMeasured
from ..gemm import GEMM_FORMATS, MeasuredGemms
from . import aiconfigurator
from .importing import read_table
from .kernel_formats import served_formats
from .schema import PRODUCTS, QUANTIZES
from .table import LatencyTable

if TYPE_CHECKING:
    import pandas as pd

FOLDER_VARIABLE = "BITFRONT_TABLES"
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
        others: rows of other kernels (convolutions, conversions, finer formats), and unstable ones.
        quantizes: the formats whose times include quantizing the input.
        m: smallest and largest.
        n: likewise.
        k: likewise.
        statistic: what a time is: ``median`` or ``mean``.
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
        return (
            f"measured: {self.device}, {' '.join(filter(None, (name, self.version)))}, {self.rows:,} rows "
            f"({self.statistic}), {self.source}{licence}{dates}, digest {self.digest}"
        )

    @property
    def grammar(self) -> tuple[str, ...]:
        """The formats of the grammar that its kernels run."""
        return tuple(name for kernel, _ in self.formats for name in served_formats(kernel))


def user_folder() -> Path:
    """Where the user's tables lie: ``$BITFRONT_TABLES``, else ``~/.cache/bitfront/tables``."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "bitfront" / "tables"


def add(path: str | Path, **how: object) -> list[TableInfo]:
    """Take a user's measurements into the user's folder; adding the same rows again changes nothing.

    Args:
        path: CSV or parquet.
        how: what else ``read_table`` takes: columns, device, runtime, runtime_version, source, licence, date.

    Returns:
        What was added, one entry a device and version of a runtime.

    Raises:
        InvalidInput: as ``read_table``.
    """
    table = read_table(path, **how)  # type: ignore[arg-type]
    target = user_folder() / f"{Path(path).name.split('.')[0]}-{table.digest}.parquet"
    if not target.exists():
        table.to_parquet(target)
    return list(_infos(target, "user"))


def tables(device: str | None = None) -> list[TableInfo]:
    """Every table of products, or those of one device, in the order in which they are asked.

    Raises:
        InvalidInput: a file in the user's folder is no latency table.
    """
    found = [*_aiconfigurator(), *_folder(Path(str(files(__package__).joinpath("data"))), "package")]
    found += _folder(user_folder(), "user")
    return [info for info in found if device in (None, info.device)]


def answering(device: str, runtime: str | None = None) -> dict[str, TableInfo]:
    """Kernel format -> the table that answers for it on a device.

    Args:
        device: name in ``devices()``.
        runtime: only tables of this runtime.

    Raises:
        NotMeasured: no table has products of the device (in the runtime).
    """
    mine = [info for info in tables(device) if info.rows and runtime in (None, info.runtime)]
    order = ("aiconfigurator", "package", "user") if runtime is None else ("user", "package", "aiconfigurator")

    def rank(place: int, kernel: str) -> tuple[int, int]:
        info = mine[place]
        return order.index(info.origin), place if info.origin == "aiconfigurator" else -dict(info.formats)[kernel]

    chosen: dict[str, TableInfo] = {}
    for kernel in GEMM_FORMATS:
        able = [place for place, info in enumerate(mine) if kernel in dict(info.formats)]
        if able:
            chosen[kernel] = mine[min(able, key=lambda place, kernel=kernel: rank(place, kernel))]  # type: ignore[misc]
    if not chosen:
        raise NotMeasured(_nothing(device, runtime))
    return chosen


def gemms(device: str, runtime: str | None = None) -> MeasuredGemms:
    """The measured products of a device in every format that some table answers for; read-only, kept in memory.

    Args:
        device: name in ``devices()``.
        runtime: as ``answering``.

    Raises:
        NotMeasured: as ``answering``.
    """
    by_table: dict[TableInfo, list[str]] = {}
    for kernel, info in answering(device, runtime).items():
        by_table.setdefault(info, []).append(kernel)
    return _joined(tuple((info, tuple(kernels)) for info, kernels in by_table.items()))


def load(info: TableInfo) -> LatencyTable:
    """The rows of a table in the schema, all its kernels.

    Raises:
        InvalidInput: the file is gone or no longer a latency table.
    """
    if info.origin == "aiconfigurator":
        return read_table(
            info.path,
            runtime=info.runtime,
            runtime_version=info.version,
            source=info.source,
            licence=info.licence,
            date=info.dates[-1] if info.dates else "",
        )
    frame = LatencyTable.from_parquet(info.path).frame
    mine = (frame["device"] == info.device) & (frame["runtime"] == info.runtime)
    return LatencyTable(frame[mine & (frame["runtime_version"] == info.version)].reset_index(drop=True))


def summary(device: str | None = None) -> pd.DataFrame:
    """The tables as a frame: device, runtime, version, kernels, formats, rows, ranges, statistic, source, … digest."""
    import pandas as pd

    names = ["device", "runtime", "version", "kernels", "formats", "rows", "m", "n", "k", "time", "source", "licence"]
    records = [
        (
            info.device,
            info.runtime,
            info.version,
            " ".join(kernel for kernel, _ in info.formats),
            " ".join(info.grammar),
            info.rows,
            *(f"{low} to {high}" for low, high in (info.m, info.n, info.k)),
            info.statistic,
            info.source,
            info.licence,
            " to ".join(info.dates),
            info.digest,
        )
        for info in tables(device)
    ]
    return pd.DataFrame(records, columns=[*names, "date", "digest"])


@lru_cache(maxsize=32)
def _joined(chosen: tuple[tuple[TableInfo, tuple[str, ...]], ...]) -> MeasuredGemms:
    found = []
    for info, kernels in chosen:
        if info.origin == "aiconfigurator":
            found.append(aiconfigurator.products(info.path, info.device, kernels))
        else:
            products = load(info).gemms()
            found.append(products.take(np.isin(products.format, kernels)))
    joined = MeasuredGemms.joined(found) if len(found) > 1 else found[0]
    for item in fields(joined):
        getattr(joined, item.name).flags.writeable = False
    return joined


def _nothing(device: str, runtime: str | None) -> str:
    known = tables()
    suffix = f" in {runtime}" if runtime else ""
    advice = f"measure it (`bitfront measure`) or add a table of your own to {user_folder()}"
    if aiconfigurator.installed_version() is None:
        advice = f"pip install 'bitfront[nvidia]', {advice}"
    if runtime and (others := sorted({info.runtime for info in known if info.device == device})):
        return f"no measured products of {device}{suffix}; measured in {', '.join(others)}: choose one of these, or {advice}"
    names = ", ".join(dict.fromkeys(info.device for info in known)) or "none"
    return f"no measured products of {device}{suffix}; measured devices: {names}. {advice[0].upper()}{advice[1:]}"


def _aiconfigurator() -> tuple[TableInfo, ...]:
    version = aiconfigurator.installed_version()
    return () if version is None else _packaged(aiconfigurator.parts(), f"aiconfigurator-core {version}")


@cache
def _packaged(parts: tuple[aiconfigurator.Part, ...], source: str) -> tuple[TableInfo, ...]:
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
            quantizes=tuple(part.format for part in found if part.format in aiconfigurator.QUANTIZES),
            **aiconfigurator.ranges(path),
            statistic="mean",
            dates=aiconfigurator.collected(path),
            source=source,
            licence=aiconfigurator.LICENCE,
            digest=_file_digest(path),
            origin="aiconfigurator",
            path=path,
        )
        for path, found in by_path.items()
    )


def _folder(folder: Path, origin: Origin) -> list[TableInfo]:
    return [info for path in sorted(folder.glob("*.parquet")) for info in _infos(path, origin)]


def _infos(path: Path, origin: Origin) -> tuple[TableInfo, ...]:
    state = path.stat()
    return _described(path, origin, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=256)
def _described(path: Path, origin: Origin, modified: int, size: int) -> tuple[TableInfo, ...]:
    """One entry for each device and version of a runtime in a file; read again when it was modified."""
    table, digest = LatencyTable.from_parquet(path), _file_digest(path)
    frame = table.frame.assign(kernel=table.kernels)
    keys = ["device", "runtime", "runtime_version"]
    return tuple(
        _info(key, mine, digest, origin, path)
        for key, mine in frame.groupby(keys, sort=True)  # type: ignore[misc]
    )


def _info(key: tuple[str, str, str], mine: pd.DataFrame, digest: str, origin: Origin, path: Path) -> TableInfo:
    products = mine[mine["op"].isin(PRODUCTS) & mine["kernel"].isin(GEMM_FORMATS) & mine["stable"]]
    counts = products["kernel"].value_counts()
    inside = products["attributes"].str.contains(QUANTIZES, regex=False)
    dates = sorted(set(mine["date"]) - {""})
    return TableInfo(
        *key,
        formats=tuple((kernel, int(counts[kernel])) for kernel in GEMM_FORMATS if kernel in counts),
        rows=len(products),
        others=len(mine) - len(products),
        quantizes=tuple(kernel for kernel in GEMM_FORMATS if kernel in set(products["kernel"][inside])),
        **{name: _range(products[name]) for name in ("m", "n", "k")},
        statistic="mean" if mine["median_ms"].isna().all() else "median",
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
