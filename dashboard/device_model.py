"""Devices as tables and a figure of what was measured on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from ..service.canvas import add_note, base_figure
from ..service.palette import MEASURED

if TYPE_CHECKING:
    import pandas as pd


def devices_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A row a device: how latency comes about, rows of measurements, kernels, memory bandwidth, power, compute."""
    import pandas as pd

    found = [
        {
            "device": row["device"],
            "latency": row["latency"],
            "measured kernels": sum(table["rows"] for table in row["tables"]) or None,
            "tables": len(row["tables"]),
            "bandwidth (GB/s)": row.get("bandwidth_gb_s"),
            "power (W)": row.get("power_w"),
            "compute capability": row.get("compute_capability") or "",
        }
        for row in rows
    ]
    return pd.DataFrame(found).sort_values(["latency", "device"], ignore_index=True)


def tables_table(row: Mapping[str, Any]) -> pd.DataFrame:
    """A row a table of a device: runtime, kernels, rows, range of the products, dates, source, licence, digest."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "runtime": f"{each['runtime']} {each['version']}".strip(),
                "kernels": " ".join(each["kernels"]),
                "rows": each["rows"],
                "m": _range(each["m"]),
                "n": _range(each["n"]),
                "k": _range(each["k"]),
                "measured": " to ".join(each["dates"]) or "not recorded",
                "source": each["source"],
                "licence": each["licence"],
                "digest": each["digest"],
            }
            for each in row["tables"]
        ]
    )


def kernels_table(detail: Mapping[str, Any]) -> pd.DataFrame:
    """A row a kernel: the formats that it runs, the table that answers, its coverage, the error of its predictor."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "kernel": each["kernel"],
                "formats": " ".join(each["formats"]) or "none",
                "rows": each["rows"],
                "m": _range(each["m"]),
                "n": _range(each["n"]),
                "k": _range(each["k"]),
                "answered by": f"{each['runtime']} {each['version']}",
                "predictor": _error(each["predictor"]),
                "digest": each["digest"],
            }
            for each in detail["kernels"]
        ]
    )


def coverage(detail: Mapping[str, Any]) -> go.Figure:
    """Measured products by kernel.

    Args:
        detail: a device in full, as ``GET /v1/devices/NAME`` gives it.
    """
    kernels = detail["kernels"]
    figure = base_figure(max(220, 110 + 34 * len(kernels)))
    if not kernels:
        add_note(figure, "no table: latency is the roofline of the data sheet")
        return figure
    figure.add_trace(
        go.Bar(
            x=[each["rows"] for each in kernels],
            y=[escape(each["kernel"]) for each in kernels],
            orientation="h",
            marker={"color": MEASURED},
            hovertemplate="%{y}: %{x:,} products<extra></extra>",
        )
    )
    figure.update_xaxes(title="measured products (m, n, k)")
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def _range(ends: Sequence[float] | None) -> str:
    return f"{ends[0]:,} to {ends[-1]:,}" if ends else ""


def _error(predictor: Any) -> str:
    if isinstance(predictor, Mapping):
        return ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in predictor.items()
        )
    return str(predictor) if predictor else "fitted on first use"
