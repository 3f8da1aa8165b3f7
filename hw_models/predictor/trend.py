"""The smooth part of a format's time: the law of the device, and what it leaves at neighbouring weight shapes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..devices import Device, device
from ..gemm import Gemms, MeasuredGemms
from ..law import fit, log_ms, work
from .kriging import Kriging

FloatArray = NDArray[np.float64]

#: Rows that the ten parameters of the law are fitted to.
_FITTED = 1500


@dataclass(frozen=True)
class Trend:
    """Law and kriged remainder of one format on one device.

    Attributes:
        sheet: the data sheet of the device.
        theta: parameters of the law (``law.PARAMETERS``).
        kriging: of what the law leaves.
    """

    sheet: Device
    theta: FloatArray
    kriging: Kriging

    @staticmethod
    def of(rows: MeasuredGemms, lines: FloatArray, seed: int = 0, theta: FloatArray | None = None) -> Trend:
        """Fit to measurements.

        Args:
            rows: of one format on one device.
            lines: sizes of m that the remainder is kept at, rising.
            seed: of the rows that the law is fitted to.
            theta: parameters of a law that is fitted already.

        Raises:
            NotMeasured: the data sheet lacks the arithmetic of the format.
        """
        sheet, logs = device(str(rows.device[0])), np.log(rows.ms)
        demand = work(rows, sheet)
        if theta is None:
            some = np.random.default_rng(seed).permutation(len(rows))[:_FITTED]
            theta = fit(demand.take(some), logs[some])
        return Trend(sheet, theta, Kriging.of(rows, logs - log_ms(theta, demand), lines))

    def law(self, gemms: Gemms) -> FloatArray:
        """Log ms of the law alone, float64 array [rows]."""
        return log_ms(self.theta, work(gemms, self.sheet))
