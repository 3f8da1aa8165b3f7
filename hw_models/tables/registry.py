"""The registry of latency tables: what was measured on which device, by whom, and which table answers.

Tables come from three places: the parquet files in this package's ``tables/data``, ``aiconfigurator-core`` where it is
installed, and the user's folder (``$BITFRONT_TABLES``, else ``~/.cache/bitfront/tables``; ``add`` puts them there).

For each kernel format one table answers. Without a runtime these are tried in turn: of aiconfigurator's tables those of
TensorRT-LLM (the newest version that has the format), then of this package's and the user's the one with the most rows.
With a runtime only its tables count, those of the user first.
"""

from __future__ import annotations

import os
from dataclasses import fields
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import NotMeasured
from ..gemm import GEMM_FORMATS, MeasuredGemms
from . import aiconfigurator
from .importing import read_table
from .info import Origin, TableInfo, infos, packaged
from .table import LatencyTable

if TYPE_CHECKING:
    import pandas as pd

FOLDER_VARIABLE = "BITFRONT_TABLES"


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
    return list(infos(target, "user"))


def tables(device: str | None = None) -> list[TableInfo]:
    """Every table of products, or those of one device, in the order in which they are asked.

    Raises:
        InvalidInput: a file in the user's folder is no latency table.
    """
    found = [*_aiconfigurator(device), *_folder(Path(str(files(__package__).joinpath("data"))), "package")]
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
    first = next((info.runtime for info in mine if info.origin == "aiconfigurator"), None)
    mine = [info for info in mine if info.origin != "aiconfigurator" or info.runtime == first]

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
        return (
            f"no measured products of {device}{suffix}; measured in {', '.join(others)}: take one of these, or {advice}"
        )
    names = ", ".join(dict.fromkeys(info.device for info in known)) or "none"
    return f"no measured products of {device}{suffix}; measured devices: {names}. {advice[0].upper()}{advice[1:]}"


def _aiconfigurator(device: str | None) -> tuple[TableInfo, ...]:
    version = aiconfigurator.installed_version()
    return () if version is None else packaged(aiconfigurator.parts(device), f"aiconfigurator-core {version}")


def _folder(folder: Path, origin: Origin) -> list[TableInfo]:
    return [info for path in sorted(folder.glob("*.parquet")) for info in infos(path, origin)]
