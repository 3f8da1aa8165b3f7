"""The tables of a named GPU, put together once per process: measured products, the predictor, laws of other kernels."""

from __future__ import annotations

from functools import cache

import numpy as np

from ...errors import NotMeasured
from ..devices import device
from ..gemm import Gemms, LatencyModel, MeasuredGemms, Prediction
from ..tables import aiconfigurator
from .device_tables import GpuTables, assumed_law
from .elementwise import ElementwiseLaw, fit_law
from .gemm_times import GemmTimes

#: Kernel formats whose measured times hold the quantization of the input, in the tables of aiconfigurator-core.
INSIDE = frozenset({"fp8", "fp8_block", "nvfp4"})
_BYTES = 3.0  # an element of an input that is rounded to 8 bits: 16 bits read, 8 written


def has_tables(name: str) -> bool:
    """Whether products were measured on a device (and the package that holds them is installed)."""
    if aiconfigurator.installed_version() is None:
        return False
    return any(part.device == name for part in aiconfigurator.parts())


@cache
def gpu_tables(name: str, runtime: str | None = None) -> GpuTables:
    """Everything that prices on a device are made of.

    Args:
        name: in ``devices()``.
        runtime: trtllm, sglang or vllm; ``None`` takes trtllm and what it lacks from the others.

    Raises:
        InvalidInput: unknown device or runtime, or the package with the tables is not installed.
        NotMeasured: the device has no table.
    """
    sheet = device(name)
    rows = aiconfigurator.gemms(name, runtime)
    times = GemmTimes(rows, Deferred(rows))
    elementwise = _law(name, None, "scale_matrix") or assumed_law(sheet, times.floor_ms)
    quantize = _law(name, runtime, "scale_matrix") or assumed_law(sheet, times.floor_ms)
    chosen = aiconfigurator.selected(name, runtime)
    sources = ", ".join(sorted({f"{part.runtime} {part.version}" for part in chosen}))
    return GpuTables(
        sheet,
        times,
        elementwise,
        quantize,
        _law(name, runtime, "compute_scale"),
        INSIDE,
        f"{sources}, {len(rows):,} products of aiconfigurator-core {aiconfigurator.installed_version()} "
        f"({aiconfigurator.LICENCE})",
    )


class Deferred:
    """The predictor of a device: loaded, or fitted and kept, when the first product that was not measured is asked for.

    Args:
        rows: of one device.
    """

    def __init__(self, rows: MeasuredGemms) -> None:
        self._rows = rows
        self._model: LatencyModel | None = None

    def predict(self, gemms: Gemms) -> Prediction:
        """As ``LatencyModel.predict``.

        Raises:
            NotMeasured: the predictor knows nothing of a format or shape.
        """
        if self._model is None:
            from ..predictor import fitted

            self._model = fitted(self._rows)
        return self._model.predict(gemms)


def _law(name: str, runtime: str | None, operation: str) -> ElementwiseLaw | None:
    """The law of one operation of quantization; ``None`` where it was not measured."""
    try:
        costs = aiconfigurator.quantization_costs(name, runtime)
    except NotMeasured:
        return None
    mine = costs.operation == operation
    if not mine.any():
        return None
    moved = _BYTES * costs.m[mine] * costs.k[mine].astype(np.float64)
    what = {"scale_matrix": "static quantization", "compute_scale": "finding a scale"}[operation]
    return fit_law(moved, costs.ms[mine], f"{int(mine.sum())} measured kernels of {what} to fp8 in {costs.runtime}")
