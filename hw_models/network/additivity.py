"""AdditivityReport: the sum of the layers against measured whole models, and what is left after learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from .residual import Residual, fit
from .terms import KERNELS, PARTS
from .whole import WholeModel

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class AdditivityReport:
    """Measured whole models and what three sums say of them.

    Attributes:
        labels: of the exports.
        measured_ms: float64 array [exports].
        layers_ms: sum of the sites' kernels timed alone.
        parts_ms: with conversions between neighbours and the operators outside the sites.
        learned_ms: with the factors that were learned from other exports: for those that the model was fitted to,
            from the rest of them.
        low_ms: lower end of the 95 % interval of ``learned_ms``.
        high_ms: upper end.
        fitted: boolean array [exports]: whether the model was fitted to an export.
        parts: array [exports, parts] of ``PARTS``, in milliseconds before the factors.
        residual: the factors.
    """

    labels: tuple[str, ...]
    measured_ms: NDArray[np.float64]
    layers_ms: NDArray[np.float64]
    parts_ms: NDArray[np.float64]
    learned_ms: NDArray[np.float64]
    low_ms: NDArray[np.float64]
    high_ms: NDArray[np.float64]
    fitted: NDArray[np.bool_]
    parts: NDArray[np.float64]
    residual: Residual

    @property
    def table(self) -> pd.DataFrame:
        """One row an export: measured, the three sums, the interval, whether the model was fitted to it."""
        import pandas as pd

        columns = ("measured_ms", "layers_ms", "parts_ms", "learned_ms", "low_ms", "high_ms", "fitted")
        return pd.DataFrame({name: getattr(self, name) for name in columns}, index=list(self.labels))

    @property
    def factors(self) -> pd.DataFrame:
        """One row a part: its mean milliseconds over the exports, its factor, and the factor's standard deviation."""
        import pandas as pd

        deviation = np.sqrt(np.diag(self.residual.covariance))
        columns = {"mean_ms": self.parts.mean(axis=0), "factor": self.residual.mean, "deviation": deviation}
        return pd.DataFrame(columns, index=list(PARTS))

    def summary(self, held_out: bool = True) -> dict[str, Any]:
        """Error of each sum over the held-out exports, or over those that the model was fitted to (leave one out).

        Returns:
            exports; for layers, parts and learned: mean absolute percentage error, Spearman rank correlation; the
            largest error of the learned sum and the share of its intervals that hold the measured time.

        Raises:
            InvalidInput: there are fewer than 2 such exports.
        """
        from scipy.stats import spearmanr

        rows = self.fitted != held_out
        if rows.sum() < 2:
            raise InvalidInput(
                f"{rows.sum()} exports are {'held out' if held_out else 'fitted'}; at least 2 are needed"
            )
        measured = self.measured_ms[rows]
        told: dict[str, Any] = {"exports": int(rows.sum())}
        for name in ("layers", "parts", "learned"):
            given = getattr(self, f"{name}_ms")[rows]
            told[f"{name}_mape_percent"] = 100 * float(np.mean(np.abs(given / measured - 1)))
            told[f"{name}_spearman"] = float(spearmanr(given, measured).statistic)
        told["learned_largest_error_percent"] = 100 * float(np.max(np.abs(self.learned_ms[rows] / measured - 1)))
        inside = (self.low_ms[rows] <= measured) & (measured <= self.high_ms[rows])
        told["interval_coverage_percent"] = 100 * float(inside.mean())
        return told

    def figure(self) -> Figure:
        """The three sums against the measured times, with the intervals of the learned one."""
        from plotly import graph_objects as go

        figure = go.Figure()
        ends = [0.0, 1.05 * float(max(self.measured_ms.max(), self.high_ms.max()))]
        line = {"color": "#888", "dash": "dot"}
        figure.add_trace(go.Scatter(x=ends, y=ends, mode="lines", line=line, name="foretold = measured"))
        for name, color in (("layers", "#bbb"), ("parts", "#e6a23c")):
            marker = {"color": color}
            values = getattr(self, f"{name}_ms")
            told = {"layers": "sum of the layers", "parts": "with conversions and other operators"}[name]
            figure.add_trace(go.Scatter(x=self.measured_ms, y=values, mode="markers", marker=marker, name=told))
        bars = {"array": self.high_ms - self.learned_ms, "arrayminus": self.learned_ms - self.low_ms, "thickness": 0.7}
        figure.add_trace(
            go.Scatter(
                x=self.measured_ms, y=self.learned_ms, error_y={**bars, "symmetric": False}, mode="markers",
                marker={"color": "#3366cc"}, text=list(self.labels), name="with learned factors, 95 %",
            )
        )  # fmt: skip
        return figure.update_layout(
            xaxis_title="measured whole model (ms)", yaxis_title="foretold (ms)", template="plotly_white"
        )


def additivity(
    model: WholeModel,
    labels: Sequence[str],
    choices: NDArray[np.int64],
    measured_ms: NDArray[np.float64],
    fitted: NDArray[np.bool_],
) -> AdditivityReport:
    """Compare sums of parts with measured whole models.

    Args:
        model: priced parts and factors.
        labels: names of the exports.
        choices: int64 array [exports, sites].
        measured_ms: float64 array [exports].
        fitted: boolean array [exports]: which of them the factors were learned from. Each of these is foretold by
            factors learned from the others, so no figure of the report is that of a fit.

    Returns:
        The report.

    Raises:
        InvalidInput: the lengths differ.
    """
    lengths = {len(labels), len(choices), len(measured_ms), len(fitted)}
    if len(lengths) > 1:
        raise InvalidInput(f"labels, choices, measured_ms and fitted differ in length: {sorted(lengths)}")
    parts = model.terms.of(choices)
    learned, low, high = (column.copy() for column in model.predict(choices))
    for index in np.flatnonzero(fitted):
        rest = fitted.copy()
        rest[index] = False
        if rest.any():
            other = WholeModel(model.terms, fit(parts[rest], measured_ms[rest]))
            learned[index], low[index], high[index] = other.interval(choices[index])
    return AdditivityReport(
        labels=tuple(labels),
        measured_ms=measured_ms,
        layers_ms=parts[:, list(KERNELS)].sum(axis=1),
        parts_ms=parts.sum(axis=1),
        learned_ms=learned,
        low_ms=low,
        high_ms=high,
        fitted=fitted,
        parts=parts,
        residual=model.residual,
    )
