"""The tables of a named GPU, put together once per process: measured products, the predictor, laws of other kernels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ...errors import NotMeasured
from ..devices import device
from ..gemm import Gemms, LatencyModel, MeasuredGemms, Prediction
from ..tables import QuantizationCosts, TableInfo, answering, gemms, quantization_costs, tables
from ..tables.aiconfigurator import RUNTIMES, installed_version
from .device_tables import GpuTables, assumed_law
from .elementwise import ElementwiseLaw, fit_law
from .gemm_times import GemmTimes

_BYTES = 3.0  # an element of an input that is rounded to 8 bits: 16 bits read, 8 written
_OPERATIONS = {"scale_matrix": "rounding inputs to fp8", "compute_scale": "finding fp8 scales"}


def has_tables(name: str) -> bool:
    """Whether products were measured on a device, in a table that is installed here."""
    return any(info.rows for info in tables(name))


def gpu_tables(name: str, runtime: str | None = None) -> GpuTables:
    """Everything that prices on a device are made of.

    Args:
        name: in ``devices()``.
        runtime: whose tables; ``None`` takes them as ``tables.answering`` does.

    Raises:
        InvalidInput: unknown device.
        NotMeasured: no table has products of the device (in the runtime).
    """
    return _gpu_tables(name, runtime, tuple(answering(device(name).name, runtime).items()))


@lru_cache(maxsize=16)
def _gpu_tables(name: str, runtime: str | None, chosen: tuple[tuple[str, TableInfo], ...]) -> GpuTables:
    sheet, rows = device(name), gemms(name, runtime)
    times = GemmTimes(rows, Deferred(rows))
    quantize = _law(name, runtime, "scale_matrix")
    elementwise = quantize if runtime is None else _law(name, None, "scale_matrix")
    return GpuTables(
        device=sheet,
        gemms=times,
        elementwise=elementwise or assumed_law(sheet, times.floor_ms),
        quantize=quantize or elementwise or assumed_law(sheet, times.floor_ms),
        find_scale=_law(name, runtime, "compute_scale"),
        inside=frozenset(kernel for kernel, info in chosen if kernel in info.quantizes),
        provenance={kernel: _told(info) for kernel, info in chosen},
    )


class Deferred:
    """The predictors of a device's formats: each loaded, or fitted and kept, when a product is first asked of it.

    Args:
        rows: of one device.
    """

    def __init__(self, rows: MeasuredGemms) -> None:
        self._rows = rows
        self._models: dict[str, LatencyModel] = {}

    def predict(self, gemms: Gemms) -> Prediction:
        """As ``LatencyModel.predict``, for products of one format.

        Raises:
            NotMeasured: too few products of the format were measured, or a shape is too far from them.
        """
        (name,) = np.unique(gemms.format).tolist()
        if name not in self._models:
            from ..predictor import fitted

            self._models[name] = fitted(self._rows.take(self._rows.format == name))
        return self._models[name].predict(gemms)


def _told(info: TableInfo) -> str:
    """The line of a table without its label and device, which the price gives."""
    return info.provenance.partition(f"{info.device}, ")[2]


def _law(name: str, runtime: str | None, operation: str) -> ElementwiseLaw | None:
    """The law of one operation of quantization; ``None`` where it was not measured."""
    costs = _costs(name, runtime)
    if costs is None or not (mine := costs.operation == operation).any():
        return None
    moved = _BYTES * costs.m[mine] * costs.k[mine].astype(np.float64)
    what = f"the law of {int(mine.sum()):,} kernels {_OPERATIONS[operation]} ({costs.runtime})"
    return fit_law(moved, costs.ms[mine], what)


def _costs(name: str, runtime: str | None) -> QuantizationCosts | None:
    if installed_version() is None or runtime not in (None, *RUNTIMES):
        return None
    try:
        return quantization_costs(name, runtime)
    except NotMeasured:
        return None
