"""Adapter to PyPI's ``aiconfigurator-core`` (NVIDIA, Apache-2.0): measured matrix products of server GPUs.

What a time is, by the project's collector (ai-dynamo/aiconfigurator, ``collector/helper.py``): the mean over 6 replays
of a CUDA graph after 3 of warm-up, each replay running up to 6 copies of the layer so that small weights do not stay in
the L2 cache. The quantization of the input is part of the time of ``fp8``, ``fp8_block`` and ``nvfp4`` products. Three
things are not as the names say (``collector/trtllm/collect_gemm_trt.py``, ``sglang/`` and ``vllm/collect_gemm.py``):

- ``int8_wo``, ``int4_wo`` and ``sq`` of TensorRT-LLM 1.0.0 are single runs under TensorRT's profiler: plugins on fp16
  inputs with one scale for each output channel, sq on an input that is quantized already.
- ``int8_wo`` of SGLang multiplies int8 by int8, with the input quantized by plain torch operators within the time. It
  is ``w8a8`` here, and no weight-only kernel.
- ``fp8_block`` of vLLM was launched without a CUDA graph: small products cost 160 us.
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
    "formats_of",
    "gemms",
    "installed_version",
    "parts",
    "products",
    "quantization_costs",
    "quantizing",
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
_MEANT = {"sglang": {"int8_wo": "w8a8"}}


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


def parts(device: str | None = None) -> tuple[Part, ...]:
    """Every format of every table of products, newest version of a runtime first; of one device if it is named.

    Raises:
        InvalidInput: the package is not installed.
    """
    systems = systems_folder()
    return tuple(
        part for system, name in SYSTEMS.items() if device in (None, name) for part in _parts(systems, system, name)
    )


def selected(device: str, runtime: str | None = None) -> tuple[Part, ...]:
    """The tables that answer for a device, one a format: the newest version that measured it.

    Args:
        device: name in ``devices()``.
        runtime: trtllm, sglang or vllm; ``None`` takes the first of them that has the device. Runtimes are not mixed.

    Raises:
        InvalidInput: the package is not installed, or there is no such runtime.
        NotMeasured: the package has no table for the device (in this runtime).
    """
    if runtime is not None and runtime not in RUNTIMES:
        raise InvalidInput(f"unknown runtime {runtime!r}; the tables know {', '.join(RUNTIMES)}")
    mine = parts(device)
    wanted = runtime or next((part.runtime for part in mine), None)
    chosen: dict[str, Part] = {}
    for part in mine:  # newest version first
        if part.runtime == wanted:
            chosen.setdefault(part.format, part)
    if not chosen:
        known = sorted({part.device for part in parts()})
        suffix = f" in {runtime}" if runtime else ""
        raise NotMeasured(f"aiconfigurator-core has no products of {device!r}{suffix}; it has {', '.join(known)}")
    return tuple(chosen.values())


def formats_of(runtime: str) -> dict[str, str]:
    """Word of the package for a kernel -> the kernel, one of ``gemm.GEMM_FORMATS``, as the runtime's collector ran it.

    Args:
        runtime: trtllm, sglang or vllm; for others the words mean what they say.
    """
    return FORMATS | _MEANT.get(runtime, {})


def quantizing(runtime: str) -> tuple[str, ...]:
    """The kernels of a runtime whose times include quantizing the input."""
    return (*QUANTIZES, *_MEANT.get(runtime, {}).values())


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
    known = formats_of(path.parent.parent.name)
    ours = np.array([known.get(name, "") for name in names.dictionary.to_pylist()])
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
def _parts(systems: Path, system: str, device: str) -> tuple[Part, ...]:
    found = []
    for runtime in RUNTIMES:
        for path in versions(systems, system, f"gemm/{runtime}", "gemm_perf.parquet"):
            counts = read(path, ["gemm_dtype"])["gemm_dtype"].value_counts().to_pylist()
            rows = {entry["values"]: entry["counts"] for entry in counts}
            found += [
                Part(device, runtime, path.parent.name, ours, rows[name], path)
                for name, ours in formats_of(runtime).items()
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
