"""How far a job can be believed, from what is stored so far: proxies against measurements, and who found the front."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..search.allocation import hypervolume
from ..search.rank_statistics import Estimate, resamples, spearman
from .compare_model import scaled
from .view import FloatArray, View

if TYPE_CHECKING:
    import pandas as pd

_DRAWS = 400
_MOST = 600  # points of a bootstrap; of more an even selection


@dataclass(frozen=True)
class Rank:
    """Spearman's correlation of a proxy's sum of scores with the measured quality, with its 95 % interval."""

    proxy: str
    value: float
    low: float
    high: float
    points: int


def scores(view: View, proxy: str) -> FloatArray:
    """The additive prediction of every point: the sum of its scores over the sites [points]."""
    found: FloatArray = view.sensitivities[proxy][np.arange(len(view.sites)), view.choices].sum(axis=1)
    return found


def ranks(view: View, split: str = "validation") -> list[Rank]:
    """Every proxy against what was measured; the interval is of the percentile bootstrap over points.

    Args:
        view: the job.
        split: of the measurements.

    Returns:
        One entry a proxy with at least four points, the best first.
    """
    quality = view.quality[split][:, 0]
    known = np.flatnonzero(np.isfinite(quality))
    if len(known) > _MOST:
        known = known[np.linspace(0, len(known) - 1, _MOST).astype(int)]
    found = []
    for proxy in view.sensitivities:
        told = scores(view, proxy)
        rows = known[np.isfinite(told[known])]
        if len(rows) < 4:
            continue
        drawn = Estimate.of(spearman(told[rows], quality[rows], resamples(len(rows), _DRAWS, 0)))
        if drawn is not None:
            found.append(Rank(proxy, drawn.value, drawn.low, drawn.high, len(rows)))
    return sorted(found, key=lambda rank: -rank.value)


def proposers_table(view: View) -> pd.DataFrame:
    """Who proposed what: points measured, points on the front, and the share of each; the most fruitful first."""
    import pandas as pd

    who = [origin.partition(":")[0] for origin in view.origins]
    rows = []
    for name in dict.fromkeys(who):
        mine = np.array([each == name for each in who])
        rows.append((name, int(mine.sum()), int((mine & view.pareto).sum())))
    frame = pd.DataFrame(rows, columns=pd.Index(["proposer", "measured", "on the front"]))
    frame["share of the work"] = frame["measured"] / max(1, len(view))
    return frame.sort_values(["on the front", "measured"], ascending=False, ignore_index=True)


def growth(quality: FloatArray, price: FloatArray, steps: int = 200) -> tuple[NDArray[np.int64], FloatArray]:
    """The hypervolume of the front as points came in.

    Args:
        quality: of the points in order [points].
        price: the same.
        steps: numbers of points at which it is computed, evenly.

    Returns:
        Numbers of points, and the dominated share of the box from the best to the worst value of each axis; logarithms
        are taken where a quality spans more than a decade and a half.
    """
    known = np.isfinite(quality) & np.isfinite(price)
    quality, price = quality[known], price[known]
    if len(quality) < 2:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    if quality.min() > 0 and quality.max() > 30 * quality.min():
        quality = np.log(quality)
    points = np.column_stack([scaled(price, price), scaled(quality, quality)])
    at = np.unique(np.linspace(1, len(points), min(steps, len(points))).astype(np.int64))
    return at, np.array([hypervolume(points[:n], [1.0, 1.0]) for n in at.tolist()])


def work_of(events: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The measurements of a job in time: ``worker``, ``start`` and ``end`` (seconds since 1970), ``split``, ``id``.

    Args:
        events: of the kind ``evaluation``, as of ``Client.log(structured=True)``.
    """
    import pandas as pd

    rows = [
        (
            str(content.get("worker") or "local"),
            float(event["at"]) - float(content.get("seconds") or 0.0),
            float(event["at"]),
            content.get("split", ""),
            content.get("configuration", ""),
        )
        for event in events
        if event.get("kind") == "evaluation" and (content := event["content"])
    ]
    return pd.DataFrame(rows, columns=pd.Index(["worker", "start", "end", "split", "id"]))
