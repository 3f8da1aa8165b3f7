"""Adapter to PyPI's ``aiconfigurator-core`` (NVIDIA, Apache-2.0): measured matrix products of server GPUs.

Layout of that package (0.12): ``systems/data/<system>/<family>/<runtime>/<version>/<table>.parquet``, one row a
(format, m, n, k), times in milliseconds. What a time is, by the project's collector (ai-dynamo/aiconfigurator,
``collector/helper.py``): the mean over 6 replays of a CUDA graph after 3 of warm-up, each replay running up to 5 copies
of the layer so that small weights do not stay in the L2 cache. The quantization of the input is part of the time of
``fp8``, ``fp8_block`` and ``nvfp4`` products; ``quantization_costs`` tells what of it a static scale saves.

Folders that hold only a ``reuse.yaml`` repeat another version's rows and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput, NotMeasured
from ..gemm import MeasuredGemms

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

#: Runtimes in the order in which they are asked when none is named.
RUNTIMES = ("trtllm", "sglang", "vllm")
LICENCE = "Apache-2.0"

#: Folder of the package -> name in ``devices()``.
SYSTEMS = {
    "a100_sxm": "nvidia-a100-sxm-80gb",
    "h100_sxm": "nvidia-h100-sxm",
    "h200_sxm": "nvidia-h200-sxm",
    "l40s": "nvidia-l40s",
    "b200_sxm": "nvidia-b200",
    "b300_sxm": "nvidia-b300",
    "gb200": "nvidia-gb200",
    "gb300": "nvidia-gb300",
    "rtx_pro_6000_server": "nvidia-rtx-pro-6000",
}
#: Name of a kernel format in the package -> ours (``gemm.GEMM_FORMATS``).
FORMATS = {
    "bfloat16": "bf16",
    "fp8": "fp8",
    "fp8_block": "fp8_block",
    "nvfp4": "nvfp4",
    "int8_wo": "int8_wo",
    "int4_wo": "int4_wo",
    "sq": "w8a8",
}
#: Formats whose times include quantizing the input: with one dynamic scale, in groups of 128, in blocks of 16.
QUANTIZES = ("fp8", "fp8_block", "nvfp4")
#: Share of zeros from which a table of differences counts as noise.
_NOISE = 0.1


@dataclass(frozen=True, order=True)
class Part:
    """The rows of one format in one table: what ``gemms`` is put together from.

    Attributes:
        device: name in ``devices()``.
        runtime: trtllm, sglang or vllm.
        version: of the runtime.
        format: one of ``gemm.GEMM_FORMATS``.
        rows: how many.
        path: the parquet file.
    """

    device: str
    runtime: str
    version: str
    format: str
    rows: int
    path: Path


@dataclass(frozen=True)
class QuantizationCosts:
    """Time to quantize an input ``[m, k]`` to fp8 with one scale for the tensor, in columns.

    Attributes:
        device: name in ``devices()``.
        runtime: with its version, such as ``"trtllm 1.3.0rc20"``.
        operation: str array [rows]: ``compute_scale`` (find the largest magnitude: dynamic minus static quantization)
            or ``scale_matrix`` (static quantization: divide, round, store).
        format: str array [rows]: of the result.
        m: int64 array [rows].
        k: int64 array [rows].
        ms: float64 array [rows]: milliseconds, > 0.
    """

    device: str
    runtime: str
    operation: NDArray[np.str_]
    format: NDArray[np.str_]
    m: NDArray[np.int64]
    k: NDArray[np.int64]
    ms: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.m)


def installed_version() -> str | None:
    """The version of ``aiconfigurator-core``, or ``None`` where it is not installed."""
    try:
        return metadata.version("aiconfigurator-core")
    except metadata.PackageNotFoundError:
        return None


def systems_folder() -> Path:
    """Its folder of tables and data sheets (the package itself is not imported: that would load its estimators).

    Raises:
        InvalidInput: the package is not installed.
    """
    found = find_spec("aiconfigurator_core")
    if found is None or found.origin is None:
        raise InvalidInput(
            "measured tables of NVIDIA GPUs need the package aiconfigurator-core: pip install 'bitfront[nvidia]'"
        )
    return Path(found.origin).parent / "systems"


def available() -> pd.DataFrame:
    """What the package measured: columns device, runtime, version, formats (joined by a space) and rows.

    Raises:
        InvalidInput: the package is not installed.
    """
    import pandas as pd

    tables: dict[tuple[str, str, str], list[Part]] = {}
    for part in parts():
        tables.setdefault((part.device, part.runtime, part.version), []).append(part)
    records = [
        (*key, " ".join(part.format for part in found), sum(part.rows for part in found))
        for key, found in tables.items()
    ]
    return pd.DataFrame(records, columns=["device", "runtime", "version", "formats", "rows"])


def parts() -> tuple[Part, ...]:
    """Every format of every table of products, newest version of a runtime first.

    Raises:
        InvalidInput: the package is not installed.
    """
    return _parts(systems_folder())


def selected(device: str, runtime: str | None = None) -> tuple[Part, ...]:
    """The tables that answer for a device, one a format: the newest version that measured it.

    Args:
        device: name in ``devices()``.
        runtime: trtllm, sglang or vllm; ``None`` takes trtllm, and what it lacks from sglang, then from vllm (the
            int8 weight-only products of the H100).

    Raises:
        InvalidInput: the package is not installed, or there is no such runtime.
        NotMeasured: the package has no table for the device (in this runtime).
    """
    if runtime is not None and runtime not in RUNTIMES:
        raise InvalidInput(f"unknown runtime {runtime!r}; the tables know {', '.join(RUNTIMES)}")
    wanted = RUNTIMES if runtime is None else (runtime,)
    mine = [part for part in parts() if part.device == device and part.runtime in wanted]
    chosen: dict[str, Part] = {}
    for part in sorted(mine, key=lambda part: wanted.index(part.runtime)):  # stable: newest version first
        chosen.setdefault(part.format, part)
    if not chosen:
        known = sorted({part.device for part in parts()})
        suffix = f" in {runtime}" if runtime else ""
        raise NotMeasured(f"aiconfigurator-core has no products of {device!r}{suffix}; it has {', '.join(known)}")
    return tuple(chosen.values())


def gemms(device: str, runtime: str | None = None) -> MeasuredGemms:
    """The measured products of a device; read-only arrays, kept in memory after the first call.

    Args:
        device: name in ``devices()``.
        runtime: as ``selected``.

    Raises:
        InvalidInput: as ``selected``.
        NotMeasured: as ``selected``.
    """
    return _gemms(selected(device, runtime))


def quantization_costs(device: str, runtime: str | None = None) -> QuantizationCosts:
    """What quantizing the input of an fp8 product costs on a device.

    Args:
        device: name in ``devices()``.
        runtime: trtllm, sglang or vllm; ``None`` takes the first of them that measured it.

    Returns:
        The times. ``compute_scale`` is a difference of two times that the package clips at zero: zeros are left out,
        and where more than a tenth of a table is zero, the whole operation is.

    Raises:
        InvalidInput: the package is not installed, or there is no such runtime.
        NotMeasured: the package has no such table.
    """
    if runtime is not None and runtime not in RUNTIMES:
        raise InvalidInput(f"unknown runtime {runtime!r}; the tables know {', '.join(RUNTIMES)}")
    return _quantization_costs(systems_folder(), device, RUNTIMES if runtime is None else (runtime,))


def products(path: Path, device: str, kinds: tuple[str, ...]) -> MeasuredGemms:
    """The rows of some formats in one file of the package.

    Args:
        path: the file.
        device: whose it is.
        kinds: formats, of ``gemm.GEMM_FORMATS``.

    Raises:
        InvalidInput: a time is not positive.
    """
    table = _read(path, ["gemm_dtype", "m", "n", "k", "latency"])
    names = table["gemm_dtype"].combine_chunks().dictionary_encode()
    ours = np.array([FORMATS.get(name, "") for name in names.dictionary.to_pylist()])
    formats = ours[names.indices.to_numpy()]
    mine = np.isin(formats, kinds)
    m, n, k, ms = (table[name].to_numpy()[mine] for name in ("m", "n", "k", "latency"))
    if not (np.isfinite(ms).all() and (ms > 0).all()):
        raise InvalidInput(f"{path} holds times that are not positive; install another version of aiconfigurator-core")
    return MeasuredGemms(np.broadcast_to(np.array(device), m.shape), formats[mine], m, n, k, ms)


def ranges(path: Path) -> dict[str, tuple[int, int]]:
    """Smallest and largest m, n and k of a file of products, from its metadata."""
    import pyarrow.parquet as pq

    found = pq.read_metadata(path)
    places = {found.schema.column(place).name: place for place in range(len(found.schema))}
    made = {}
    for name in ("m", "n", "k"):
        statistics = [found.row_group(group).column(places[name]).statistics for group in range(found.num_row_groups)]
        made[name] = (int(min(each.min for each in statistics)), int(max(each.max for each in statistics)))
    return made


def collected(path: Path) -> tuple[str, ...]:
    """First and last day on which the rows of a file were taken, as far as its ``collection_meta.yaml`` says."""
    import yaml

    described = yaml.safe_load(path.with_name("collection_meta.yaml").read_text())
    events = described["tables"].get(path.stem, {}).get("collections", [])
    days = sorted({str(event["collected_at"]) for event in events if "collected_at" in event})
    return tuple(dict.fromkeys([*days[:1], *days[-1:]]))


@cache
def _parts(systems: Path) -> tuple[Part, ...]:
    found = []
    for system, device in SYSTEMS.items():
        for runtime in RUNTIMES:
            for path in _versions(systems, system, f"gemm/{runtime}", "gemm_perf.parquet"):
                counts = _read(path, ["gemm_dtype"])["gemm_dtype"].value_counts().to_pylist()
                rows = {entry["values"]: entry["counts"] for entry in counts}
                found += [
                    Part(device, runtime, path.parent.name, ours, rows[name], path)
                    for name, ours in FORMATS.items()
                    if name in rows
                ]
    return tuple(found)


def _versions(systems: Path, system: str, family: str, table: str) -> list[Path]:
    """The files of a table, newest version of the runtime first."""
    from packaging.version import Version

    found = (systems / "data" / system / family).glob(f"*/{table}")
    return sorted(found, key=lambda path: Version(path.parent.name), reverse=True)


@cache
def _gemms(chosen: tuple[Part, ...]) -> MeasuredGemms:
    by_path: dict[Path, list[str]] = {}
    for part in chosen:
        by_path.setdefault(part.path, []).append(part.format)
    read = [products(path, chosen[0].device, tuple(kinds)) for path, kinds in by_path.items()]
    joined = MeasuredGemms.joined(read) if len(read) > 1 else read[0]
    for item in fields(joined):
        getattr(joined, item.name).flags.writeable = False
    return joined


@cache
def _quantization_costs(systems: Path, device: str, runtimes: tuple[str, ...]) -> QuantizationCosts:
    system = next((name for name, ours in SYSTEMS.items() if ours == device), None)
    for runtime in runtimes if system else ():
        newest = _versions(systems, str(system), f"quantize/{runtime}", "scale_matrix_perf.parquet")
        if newest:
            tables = [_read(newest[0].with_name(f"{name}_perf.parquet")) for name in ("scale_matrix", "computescale")]
            return _costs(device, f"{runtime} {newest[0].parent.name}", tables)
    raise NotMeasured(
        f"aiconfigurator-core has no quantization costs of {device!r} in {', '.join(runtimes)}: "
        "leave them out, or measure them (`bitfront measure`)"
    )


def _costs(device: str, runtime: str, tables: list[pa.Table]) -> QuantizationCosts:
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in ("op_name", "quant_dtype", "m", "k", "latency")}
    for table in tables:
        times = table["latency"].to_numpy()
        if (times <= 0).mean() > _NOISE:
            continue
        for name, collected in columns.items():
            collected.append(table[name].to_numpy()[times > 0])
    operation, kind, m, k, ms = (np.concatenate(collected) for collected in columns.values())
    return QuantizationCosts(device, runtime, operation.astype(str), kind.astype(str), m, k, ms)


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=columns, use_threads=False, memory_map=True)
