"""Adapter to PyPI's ``aiconfigurator-core`` (NVIDIA, Apache-2.0): measured matrix products of server GPUs.

What a time is, by the project's collector (ai-dynamo/aiconfigurator, ``collector/helper.py``): the mean over 6 replays
of a CUDA graph after 3 of warm-up, each replay running up to 5 copies of the layer so that small weights do not stay in
the L2 cache. The quantization of the input is part of the time of ``fp8``, ``fp8_block`` and ``nvfp4`` products;
``quantization_costs`` tells what of it a static scale saves. The ``int8_wo``, ``int4_wo`` and ``w8a8`` products of
TensorRT-LLM 1.0.0 are single runs under TensorRT's profiler (``collect_gemm_trt.py``): plugins on fp16 inputs with one
scale for each output channel, w8a8 on an input that is quantized already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InvalidInput, NotMeasured
from ..gemm import MeasuredGemms
from .aiconfigurator_files import LICENCE, RUNTIMES, SYSTEMS, installed_version, read, systems_folder, versions
from .input_quantization import QuantizationCosts, quantization_costs

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "FORMATS",
    "LICENCE",
    "QUANTIZES",
    "RUNTIMES",
    "SYSTEMS",
    "Part",
    "QuantizationCosts",
    "available",
    "collected",
    "gemms",
    "installed_version",
    "parts",
    "products",
    "quantization_costs",
    "ranges",
    "selected",
    "systems_folder",
]

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


def products(path: Path, device: str, kinds: Sequence[str]) -> MeasuredGemms:
    """The rows of some formats in one file of the package.

    Args:
        path: the file.
        device: whose it is.
        kinds: formats, of ``gemm.GEMM_FORMATS``.

    Raises:
        InvalidInput: a time is not positive.
    """
    table = read(path, ["gemm_dtype", "m", "n", "k", "latency"])
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
            for path in versions(systems, system, f"gemm/{runtime}", "gemm_perf.parquet"):
                counts = read(path, ["gemm_dtype"])["gemm_dtype"].value_counts().to_pylist()
                rows = {entry["values"]: entry["counts"] for entry in counts}
                found += [
                    Part(device, runtime, path.parent.name, ours, rows[name], path)
                    for name, ours in FORMATS.items()
                    if name in rows
                ]
    return tuple(found)


@cache
def _gemms(chosen: tuple[Part, ...]) -> MeasuredGemms:
    by_path: dict[Path, list[str]] = {}
    for part in chosen:
        by_path.setdefault(part.path, []).append(part.format)
    read = [products(path, chosen[0].device, kinds) for path, kinds in by_path.items()]
    joined = MeasuredGemms.joined(read) if len(read) > 1 else read[0]
    for item in fields(joined):
        getattr(joined, item.name).flags.writeable = False
    return joined
