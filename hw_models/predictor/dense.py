"""fit, DensePredictor: the latency of matrix products on devices whose kernels were measured on a grid of shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput, NotMeasured
from ..gemm import Gemms, MeasuredGemms, Prediction
from .features import groups
from .fitting import fit_format, weight_shapes
from .format_model import FormatModel

FloatArray = NDArray[np.float64]

#: Fewer weight shapes than this are no dense table.
FEWEST_SHAPES = 40
#: (rows of one device and format, coverage, seed, monotone, strict) -> model.
Fitter = Callable[[MeasuredGemms, float, int, bool, bool], FormatModel]


@dataclass(frozen=True)
class DensePredictor:
    """Latency of matrix products; a ``LatencyModel``.

    Attributes:
        models: (device, format) -> its fitted surface.
        refused: (device, format) -> why its rows were not enough.
        coverage: of the intervals.
    """

    models: Mapping[tuple[str, str], FormatModel]
    refused: Mapping[tuple[str, str], str]
    coverage: float

    def predict(self, gemms: Gemms) -> Prediction:
        """The times.

        Raises:
            InvalidInput: a size below 1.
            NotMeasured: no model of a device and format, or a size outside what was measured.
        """
        if len(gemms) and min(gemms.m.min(), gemms.n.min(), gemms.k.min()) < 1:
            raise InvalidInput("a product has m, n or k below 1: give sizes of at least 1")
        logs, half = np.empty(len(gemms)), np.empty(len(gemms))
        for key, rows in groups(gemms).items():
            logs[rows], half[rows] = self._model(key).predict(gemms.take(rows))
        return Prediction(np.exp(logs), np.exp(logs - half), np.exp(logs + half), self.coverage)

    def _model(self, key: tuple[str, str]) -> FormatModel:
        if key in self.models:
            return self.models[key]
        device, format_ = key
        known = sorted(kind for name, kind in self.models if name == device)
        why = self.refused.get(key, "no measurements")
        instead = f"use {', '.join(known)}" if known else "choose a measured device"
        raise NotMeasured(f"no latency model of {format_} on {device} ({why}): {instead}, or measure it first")


def fit(
    rows: MeasuredGemms,
    coverage: float = 0.9,
    seed: int = 0,
    monotone: bool = True,
    strict: bool = False,
    fitter: Fitter | None = None,
) -> DensePredictor:
    """Fit every device and format that occurs.

    Args:
        rows: measurements on many weight shapes; several devices and formats may be mixed.
        coverage: of the intervals, in (0, 1).
        seed: of the folds and the boosting.
        monotone: whether the predicted time must not fall when n or k grow, nor when m grows but for the steps between
            two measured m where the table itself falls (another kernel serves; ``FormatModel.falls`` names them).
        strict: whether it must not fall there either. Further from what was measured; no effect without ``monotone``.
        fitter: fits one device and format; ``None`` is ``fit_format``.

    Returns:
        The predictor; formats with too few shapes are named in ``refused``.

    Raises:
        InvalidInput: no rows, times that are not positive, or coverage outside (0, 1).
        NotMeasured: no device and format has enough shapes.
    """
    if not 0 < coverage < 1:
        raise InvalidInput(f"coverage is {coverage}: give a share between 0 and 1, such as 0.9")
    if not len(rows):
        raise InvalidInput("no measurements: give a table with rows")
    if not (np.isfinite(rows.ms) & (rows.ms > 0)).all():
        raise InvalidInput("a measured time is not a positive number: leave such rows out")
    models, refused = {}, {}
    for key, at in groups(rows).items():
        part = rows.take(at)
        shapes = weight_shapes(part)
        if shapes < FEWEST_SHAPES:
            refused[key] = f"{shapes} weight shapes were measured, a dense table has at least {FEWEST_SHAPES}"
            continue
        models[key] = (fitter or fit_format)(part, coverage, seed, monotone, strict)
    if not models:
        raise NotMeasured(
            f"no dense table: {'; '.join(f'{key[1]} on {key[0]}: {why}' for key, why in refused.items())}"
        )
    return DensePredictor(models, refused, coverage)
