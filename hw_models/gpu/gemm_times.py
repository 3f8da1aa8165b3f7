"""Time of matrix products on one device: looked up where measured, else foretold by a latency model."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ...errors import NotMeasured
from ..gemm import Gemms, LatencyModel, MeasuredGemms

#: Relative standard deviation of a measured row: two releases of one framework differ by about 3.5 %.
MEASURED_SIGMA = 0.035
#: Step of the clock of TensorRT's layer profiler, ms; rows that are multiples of it are single runs read from it.
PROFILER_STEP_MS = 1.024e-3
_BITS = 21  # of one dimension in a key: 2 million


@dataclass(frozen=True)
class Times:
    """Times of products.

    Attributes:
        ms: float64 array [rows].
        sigma: standard deviation of each, ms.
        measured: bool array [rows]: whether the very product is in the table; else it is predicted.
    """

    ms: NDArray[np.float64]
    sigma: NDArray[np.float64]
    measured: NDArray[np.bool_]


class GemmTimes:
    """The products of one device.

    A product outside the table is brought to its edge where that is sound: an ``n`` or ``k`` below the smallest
    measured one is padded to it (tiles are padded anyway, so this is an upper bound), an ``m`` or ``n`` above the
    largest is cut into equal parts that run one after the other (rows and output features are independent). A larger
    ``k`` is left to the model, which may refuse.

    Args:
        rows: what was measured, of one device.
        model: foretells the rest; ``None`` refuses what was not measured.
    """

    def __init__(self, rows: MeasuredGemms, model: LatencyModel | None) -> None:
        if not len(rows):
            raise NotMeasured("the table of products is empty; give one with rows")
        self.device = str(rows.device[0])
        self.model = model
        self._known = {str(name): _Known.of(rows.take(rows.format == name)) for name in np.unique(rows.format)}

    @property
    def formats(self) -> tuple[str, ...]:
        """Kernel formats that were measured."""
        return tuple(self._known)

    @property
    def singly_timed(self) -> tuple[str, ...]:
        """Formats whose rows are single runs in steps of ``PROFILER_STEP_MS``, not means over replays of a graph."""
        return tuple(name for name, known in self._known.items() if known.step_ms)

    @property
    def floor_ms(self) -> float:
        """The shortest measured time: what a kernel takes that has nothing to do."""
        return min(float(known.ms.min()) for known in self._known.values())

    def times(self, format_name: str, m: NDArray[np.int64], n: NDArray[np.int64], k: NDArray[np.int64]) -> Times:
        """Times of products in one kernel format.

        Args:
            format_name: one of ``formats``.
            m: rows of the input [rows].
            n: output features [rows].
            k: input features [rows].

        Raises:
            NotMeasured: the format was not measured, or the model cannot answer for a shape.
        """
        known = self._known.get(format_name)
        if known is None:
            raise NotMeasured(
                f"no {format_name} products were measured on {self.device}; it has {', '.join(self.formats)}"
            )
        parts_m, parts_n = -(-m // known.most[0]), -(-n // known.most[1])
        m, n = -(-m // parts_m), -(-n // parts_n)
        wide, deep = np.maximum(n, known.least[1]), np.maximum(k, known.least[2])
        as_asked = (parts_m == 1) & (parts_n == 1) & (wide == n) & (deep == k)
        n, k = wide, deep
        ms, found = known.find(m, n, k)
        sigma = np.hypot(MEASURED_SIGMA * ms, known.step_ms / np.sqrt(12.0))
        if not found.all():
            rest = ~found
            ms[rest], sigma[rest] = self._predicted(format_name, m[rest], n[rest], k[rest])
        parts = parts_m * parts_n
        return Times(ms * parts, sigma * parts, found & as_asked)

    def _predicted(
        self, format_name: str, m: NDArray[np.int64], n: NDArray[np.int64], k: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self.model is None:
            raise NotMeasured(
                f"{format_name} product {m[0]} x {k[0]} x {n[0]} was not measured on {self.device}; measure it "
                "(`bitfront measure`) or give a latency model"
            )
        names = [np.full(len(m), text) for text in (self.device, format_name)]
        told = self.model.predict(Gemms(names[0], names[1], m, n, k))
        quantile = NormalDist().inv_cdf((1 + told.coverage) / 2)
        return told.ms, np.maximum(told.high - told.ms, told.ms - told.low) / quantile


@dataclass(frozen=True)
class _Known:
    """The measured products of one format, sorted by key.

    Attributes:
        keys: int64 array [rows].
        ms: float64 array [rows].
        least: smallest m, n, k.
        most: largest m, n, k.
        step_ms: step of the clock that the times were read from, 0 where there is none to be seen.
    """

    keys: NDArray[np.int64]
    ms: NDArray[np.float64]
    least: tuple[int, int, int]
    most: tuple[int, int, int]
    step_ms: float

    @staticmethod
    def of(rows: MeasuredGemms) -> _Known:
        """The rows in order; of a product that was measured twice the last counts."""
        keys = _keys(rows.m, rows.n, rows.k)
        order = np.argsort(keys, kind="stable")
        last = np.append(keys[order][1:] != keys[order][:-1], True)
        sides = (rows.m, rows.n, rows.k)
        least, most = (tuple(int(pick(side)) for side in sides) for pick in (np.min, np.max))
        ticks = rows.ms / PROFILER_STEP_MS
        step = PROFILER_STEP_MS if len(ticks) > 8 and bool((np.abs(ticks - ticks.round()) < 0.01).all()) else 0.0
        return _Known(keys[order][last], rows.ms[order][last], least, most, step)  # type: ignore[arg-type]

    def find(
        self, m: NDArray[np.int64], n: NDArray[np.int64], k: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Times (NaN where unknown) and whether they are known."""
        wanted = _keys(m, n, k)
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        found = (self.keys[at] == wanted) & (k <= self.most[2])
        return np.where(found, self.ms[at], np.nan), found


def _keys(m: NDArray[np.int64], n: NDArray[np.int64], k: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray((m.astype(np.int64) << (2 * _BITS)) | (n.astype(np.int64) << _BITS) | k.astype(np.int64))
