"""Devices as plain documents: data sheets, tables, and per kernel the table that prices are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..hw_models.gemm import MeasuredGemms
    from ..hw_models.tables import TableInfo

_CPU = "this machine, timed with onnxruntime when prices are asked for"


def device_rows() -> list[dict[str, Any]]:
    """One entry a device: how its latency comes about, its data sheet, its tables."""
    from ..hw_models import devices
    from ..hw_models.tables import tables

    by_device: dict[str, list[TableInfo]] = {}
    for info in tables():
        by_device.setdefault(info.device, []).append(info)
    rows = []
    for sheet in devices().to_dict("records"):
        mine = by_device.get(str(sheet["device"]), [])
        plain = {str(key): None if value != value else value for key, value in sheet.items()}
        measured = sheet["device"] == "cpu" or any(info.rows for info in mine)
        latency = "measured" if measured else "roofline"
        rows.append({**plain, "latency": latency, "tables": [_table(info) for info in mine]})
    return rows


def device_detail(name: str, runtime: str | None = None) -> dict[str, Any]:
    """What prices of one device are made of: its data sheet, its tables, and the one that answers for each kernel.

    Args:
        name: in ``devices()``.
        runtime: only tables of this runtime.

    Raises:
        InvalidInput: unknown device.
        NotMeasured: a runtime was named that no table of the device is of.
    """
    from ..hw_models import device
    from ..hw_models.tables import tables

    empty: dict[str, Any] = {"kernels": [], "formats": [], "tables": [], "elementwise": None}
    if name == "cpu":
        return {"device": "cpu", "latency": "measured", "reference": _CPU, **empty}
    sheet = device(name)
    found = {
        "device": name,
        "latency": "roofline",
        "bandwidth_gb_s": sheet.bandwidth_gb_s,
        "peak_tera": dict(sheet.peak_tera),
        "power_w": sheet.power_w,
        "compute_capability": sheet.compute_capability,
        "reference": sheet.reference,
        **empty,
    }
    mine = [info for info in tables(name) if info.rows and runtime in (None, info.runtime)]
    if not mine and runtime is None:
        return found
    return found | {"latency": "measured", "tables": [_table(info) for info in mine], **_answers(name, runtime)}


def _answers(name: str, runtime: str | None) -> dict[str, Any]:
    """Kernels, the formats of the grammar that they run, and the law of element-wise kernels."""
    from ..hw_models.gpu import gpu_tables
    from ..hw_models.tables import answering, gemms, served_formats

    chosen, rows, parts = answering(name, runtime), gemms(name, runtime), gpu_tables(name, runtime)
    kernels = []
    for kernel, info in chosen.items():
        mine = rows.take(rows.format == kernel)
        sides = {side: [int(getattr(mine, side).min()), int(getattr(mine, side).max())] for side in "mnk"}
        kernels.append(
            {
                "kernel": kernel,
                "formats": list(served_formats(kernel)),
                "rows": len(mine),
                **sides,
                "runtime": info.runtime,
                "version": info.version,
                "quantizes_input": kernel in info.quantizes,
                "singly_timed": kernel in parts.gemms.singly_timed,
                "predictor": _predictor(mine),
                "digest": info.digest,
            }
        )
    law = parts.elementwise
    return {
        "kernels": kernels,
        "formats": [each for kernel in chosen for each in served_formats(kernel)],
        "elementwise": {"reference": law.reference, "floor_us": round(1e3 * law.floor_ms, 3), "error": law.error},
    }


def _predictor(rows: MeasuredGemms) -> dict[str, Any] | None:
    """What the fitted predictor of one kernel says of its own error; ``None`` while it is not fitted."""
    from ..hw_models.predictor import FormatModel, default_folder
    from ..hw_models.predictor.kept import digest

    path = default_folder() / f"{digest(rows, 0.9, 0, True)}.npz"
    if not path.exists():
        return None
    model = FormatModel.load(path)
    typical = float(np.median(model.spread))
    return {
        "coverage": model.coverage,
        "typical_error_known_sizes": float(np.expm1(typical * model.inside)),
        "typical_error_between": float(np.expm1(typical * model.outside)),
        "rows": model.rows,
    }


def _table(info: TableInfo) -> dict[str, Any]:
    return {
        "runtime": info.runtime,
        "version": info.version,
        "kernels": [kernel for kernel, _ in info.formats],
        "formats": list(info.grammar),
        "rows": info.rows,
        "other_rows": info.others,
        "m": list(info.m),
        "n": list(info.n),
        "k": list(info.k),
        "statistic": info.statistic,
        "dates": list(info.dates),
        "source": info.source,
        "licence": info.licence,
        "digest": info.digest,
    }
