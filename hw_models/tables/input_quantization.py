"""What it costs to quantize the input of an fp8 product, as ``aiconfigurator-core`` measured it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput, NotMeasured
from .aiconfigurator_files import RUNTIMES, SYSTEMS, read, systems_folder, versions

if TYPE_CHECKING:
    import pyarrow as pa

#: Share of zeros from which a table of differences counts as noise.
_NOISE = 0.1


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


@cache
def _quantization_costs(systems: Path, device: str, runtimes: tuple[str, ...]) -> QuantizationCosts:
    system = next((name for name, ours in SYSTEMS.items() if ours == device), None)
    for runtime in runtimes if system else ():
        newest = versions(systems, str(system), f"quantize/{runtime}", "scale_matrix_perf.parquet")
        if newest:
            tables = [read(newest[0].with_name(f"{name}_perf.parquet")) for name in ("scale_matrix", "computescale")]
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
