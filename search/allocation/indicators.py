"""Figures of a front: its knee and its hypervolume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ...errors import InvalidInput
from .problem import FloatArray

if TYPE_CHECKING:
    import pandas as pd


def knee(cost: ArrayLike, loss: ArrayLike, *, log_loss: bool = False) -> int:
    """The point farthest below the line from the cheapest to the best point, both axes scaled to [0, 1].

    V. Satopää et al., Finding a "kneedle" in a haystack (2011) use the same distance; J. Branke et al. (PPSN 2004)
    discuss why users like knees. Of equally far points the cheaper one is taken.

    Args:
        cost: Shape [points].
        loss: Shape [points].
        log_loss: Take the logarithm of the losses first (they must be positive): for losses over orders of magnitude.

    Returns:
        Index of the knee; 0 for fewer than three points.

    Raises:
        InvalidInput: If the arrays do not fit, hold NaN, or a loss is not positive with `log_loss`.
    """
    costs, losses = _values(cost, "cost"), _values(loss, "loss")
    if costs.ndim != 1 or costs.shape != losses.shape or not len(costs):
        raise InvalidInput(f"cost {costs.shape} and loss {losses.shape} must be vectors of the same length, at least 1")
    if log_loss:
        if (losses <= 0).any():
            raise InvalidInput("log_loss needs positive losses")
        losses = np.log(losses)
    if len(costs) < 3:
        return 0
    x, y = _unit(costs), _unit(losses)
    order = np.lexsort((costs, x + y))
    return int(order[0])


def hypervolume(points: ArrayLike | pd.DataFrame, reference: ArrayLike) -> float:
    """Volume between a front and a reference point, all objectives minimised, any number of them.

    Computed by moocore (C. M. Fonseca, L. Paquete, M. López-Ibáñez: dimension sweep, CEC 2006; A. P. Guerreiro and C.
    M.
    Fonseca: HV4D+, 2018). Points that do not dominate the reference count nothing.

    Args:
        points: Shape [points, objectives]; or a front, whose columns without choice, bound and gap are taken.
        reference: Shape [objectives].

    Returns:
        The hypervolume.

    Raises:
        InvalidInput: If the shapes disagree or a value is NaN.
    """
    import moocore

    values = points.drop(columns=["choice", "bound", "gap"], errors="ignore") if hasattr(points, "drop") else points
    table, corner = _values(values, "points"), _values(reference, "reference")
    if table.ndim != 2 or corner.shape != table.shape[1:]:
        raise InvalidInput(f"points {table.shape} and reference {corner.shape} must be [n, m] and [m]")
    inside = table[(table < corner).all(axis=1)]
    return float(moocore.hypervolume(inside, ref=corner)) if len(inside) else 0.0


def _values(values: object, name: str) -> FloatArray:
    table = np.asarray(values, dtype=np.float64)
    if np.isnan(table).any():
        raise InvalidInput(f"{name} holds NaN")
    return table


def _unit(values: FloatArray) -> FloatArray:
    width = float(np.ptp(values))
    return np.asarray((values - values.min()) / width if width > 0 else np.zeros_like(values))
