"""Several jobs in one plane: which axes they share, their fronts, and the hypervolume of each in one box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..search.allocation import hypervolume
from .figures.front_plane import lower_left
from .view import FloatArray, View

if TYPE_CHECKING:
    import pandas as pd


def shared_prices(views: Sequence[View]) -> list[str]:
    """Prices that all of them have, in the order of the first."""
    return [name for name in views[0].price_metrics if all(name in view.prices for view in views)] if views else []


def plane(view: View, metric: str, split: str) -> tuple[FloatArray, FloatArray]:
    """Price and quality of every point [points]."""
    return view.prices[metric][:, 0], view.quality[split][:, 0]


def compared(views: Sequence[View], metric: str, split: str) -> pd.DataFrame:
    """A row a job: points, points on its front in this plane, best quality, cheapest point, hypervolume.

    Args:
        views: the jobs; their qualities must be the same metric to be compared.
        metric: a price that all have.
        split: of the quality.

    Returns:
        ``hypervolume`` is the dominated share of the box from the least to the largest value of all jobs together (of
        logarithms where the quality spans more than a decade and a half and is positive), so it depends on which jobs
        are compared.
    """
    import pandas as pd

    every = [plane(view, metric, split) for view in views]
    known = [np.isfinite(price) & np.isfinite(quality) for price, quality in every]
    all_price = np.concatenate([price[fit] for (price, _), fit in zip(every, known, strict=True)])
    all_quality = np.concatenate([quality[fit] for (_, quality), fit in zip(every, known, strict=True)])
    log = len(all_quality) > 0 and all_quality.min() > 0 and all_quality.max() > 30 * all_quality.min()
    rows = []
    for view, (price, quality), fit in zip(views, every, known, strict=True):
        volume = np.nan
        if fit.any():
            values = np.log(quality[fit]) if log else quality[fit]
            ends = np.log(all_quality) if log else all_quality
            points = np.column_stack([scaled(price[fit], all_price), scaled(values, ends)])
            volume = hypervolume(points, [1.0, 1.0])
        rows.append(
            (
                view.name,
                view.model,
                int(fit.sum()),
                len(lower_left(price[fit], quality[fit])),
                float(quality[fit].min()) if fit.any() else np.nan,
                float(price[fit].min()) if fit.any() else np.nan,
                volume,
            )
        )
    names = ["job", "model", "points", "on its front", "best quality", "cheapest", "hypervolume"]
    return pd.DataFrame(rows, columns=pd.Index(names))


def scaled(values: FloatArray, of: FloatArray) -> FloatArray:
    """Values on the scale on which the least of some others is 0 and the largest 1; 0 where they are all equal."""
    low, high = float(of.min()), float(of.max())
    found: FloatArray = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return found
