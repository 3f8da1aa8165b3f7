"""FormatModel: the fitted surface of one format on one device, with its intervals; only arrays, so kept as npz."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput, NotMeasured
from ...files import replacing
from ..gemm import Gemms
from .lattice import Axes

FloatArray = NDArray[np.float64]

#: How far beyond the smallest and largest measured size a prediction goes.
EXTRAPOLATION = 2.0


@dataclass(frozen=True)
class FormatModel:
    """Latency of one format on one device.

    Attributes:
        device: name in ``devices()``.
        format: one of ``GEMM_FORMATS``.
        axes: grid of the surface.
        log_ms: float64 array [M, N, K], rising along n and k, and along m but for ``falls``, if ``monotone``.
        spread: float64 array [M, N, K]: expected size of the error of ``log_ms``.
        lines: measured sizes (m, n, k): where a product has only such sizes, ``inside`` counts, else ``outside``.
        falls: float64 array [falls, 2]: neighbouring measured sizes of m between which the surface may fall.
        inside: conformal quantile for a weight shape whose n and k, and an m, were measured, though not together.
        outside: the same for a size in between.
        multiple: n and k are rounded up to a multiple of it: the alignment of all that was measured (at most 16).
        boosting: share of the boosting that is added to the law and its kriged remainder.
        coverage: of the intervals.
        rows: measurements fitted on.
        shapes: weight shapes (n, k) among them.
        monotone: whether the surface rises at all but for ``falls``.
    """

    device: str
    format: str
    axes: Axes
    log_ms: FloatArray
    spread: FloatArray
    lines: Axes
    falls: FloatArray
    inside: float
    outside: float
    multiple: int
    boosting: float
    coverage: float
    rows: int
    shapes: int
    monotone: bool = True

    def predict(self, gemms: Gemms) -> tuple[FloatArray, FloatArray]:
        """Log ms and half the width of the interval of it, float64 arrays [rows].

        Between grid points the surface is multilinear. Below the smallest measured size the time stays, above the
        largest it grows in proportion; how far outside a size is (in the logarithm) widens the interval on both sides.

        Raises:
            NotMeasured: a size lies more than ``EXTRAPOLATION`` times outside what was measured.
        """
        n, k = (-(-side // self.multiple) * self.multiple for side in (gemms.n, gemms.k))
        sides = [side.astype(np.float64) for side in (gemms.m, n, k)]
        beyond = np.zeros(len(gemms))
        growth = np.zeros(len(gemms))
        known = np.ones(len(gemms), dtype=bool)
        for side, axis, line in zip(sides, self._grid(self.axes), self._grid(self.lines), strict=True):
            over, under = np.log(side / axis[-1]), np.log(axis[0] / side)
            growth += np.maximum(over, 0.0)
            beyond += np.maximum(np.maximum(over, under), 0.0)
            if (np.maximum(over, under) > np.log(EXTRAPOLATION) + 1e-12).any():
                self._refuse(gemms, int(np.argmax(np.maximum(over, under))))
            known &= line[np.minimum(np.searchsorted(line, side), len(line) - 1)] == side
        indices, weights = self.axes.corners(*sides)
        ms = (self.log_ms.ravel()[indices] * weights).sum(axis=1) + growth
        spread = (self.spread.ravel()[indices] * weights).sum(axis=1)
        return ms, spread * np.where(known, self.inside, self.outside) + beyond

    def save(self, path: str | Path) -> None:
        """Write everything to an npz file (to the side, synced, then renamed); nothing in it is pickled."""
        plain = {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if isinstance(getattr(self, item.name), str | int | float)
        }
        arrays = {f"{name}_{side}": getattr(getattr(self, name), side) for name in ("axes", "lines") for side in "mnk"}
        with replacing(path) as side, side.open("wb") as stream:
            np.savez_compressed(
                stream,
                log_ms=self.log_ms,
                spread=self.spread,
                falls=self.falls,
                plain=np.array(json.dumps(plain)),
                **arrays,
            )

    @staticmethod
    def load(path: str | Path) -> FormatModel:
        """Read what ``save`` wrote.

        Raises:
            InvalidInput: the file is missing or no such model.
        """
        try:
            with np.load(path, allow_pickle=False) as kept:
                plain = json.loads(str(kept["plain"]))
                axes, lines = (Axes(*(kept[f"{name}_{side}"] for side in "mnk")) for name in ("axes", "lines"))
                surfaces = {name: kept[name] for name in ("log_ms", "spread", "falls")}
                return FormatModel(axes=axes, lines=lines, **surfaces, **plain)
        except (OSError, KeyError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as cause:
            raise InvalidInput(f"{path} is no saved latency model ({cause}): delete it and fit again") from None

    @staticmethod
    def _grid(axes: Axes) -> tuple[FloatArray, FloatArray, FloatArray]:
        return axes.m, axes.n, axes.k

    def _refuse(self, gemms: Gemms, row: int) -> None:
        given = ", ".join(f"{name}={getattr(gemms, name)[row]}" for name in "mnk")
        spans = ", ".join(
            f"{name} {axis[0]:.0f} to {axis[-1]:.0f}" for name, axis in zip("mnk", self._grid(self.axes), strict=True)
        )
        raise NotMeasured(
            f"{self.format} on {self.device} with {given} lies outside what was measured ({spans}; at most "
            f"{EXTRAPOLATION:g}x beyond): measure it, or choose another size, batch or format"
        )
