"""The tables of a run: pure functions from a front and its points to a DataFrame."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .front_document import Front, Measured, Point
from .labels import label, price_label

if TYPE_CHECKING:
    import pandas as pd


def format_order(front: Front, points: Iterable[Point] = ()) -> list[str]:
    """The formats of the model coarse to fine, then any that only occur in the points."""
    used = (name for point in points for name in point.config.values())
    return list(dict.fromkeys([*front.model.formats, *used]))


def histogram(front: Front, point: Point) -> pd.DataFrame:
    """How often each format was chosen.

    Args:
        front: the front, for the sizes of the layers.
        point: the point.

    Returns:
        Index ``format`` (coarse to fine), columns ``layers`` and ``share`` (of the weight elements, 0 to 1).
    """
    import pandas as pd

    elements = {site.name: site.elements for site in front.model.sites}
    layers = dict.fromkeys(format_order(front, [point]), 0)
    weights = dict.fromkeys(layers, 0)
    for site, chosen in point.config.items():
        layers[chosen] += 1
        weights[chosen] += elements.get(site, 0)
    total = sum(weights.values()) or 1
    return pd.DataFrame(
        {"layers": list(layers.values()), "share": [part / total for part in weights.values()]},
        index=pd.Index(list(layers), name="format"),
    )


def points_table(front: Front) -> pd.DataFrame:
    """Every point as one flat row: identity, qualities with intervals, prices with intervals, a column a site.

    The columns of the sites are called ``format:NAME``.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for point in front.points:
        row: dict[str, Any] = {
            "id": point.id,
            "origin": point.origin,
            "baseline": point.baseline,
            "pareto": point.pareto,
            "feasible": point.feasible,
            "best": point.id == front.best,
        }
        for name, value in point.predicted.items():
            row[f"predicted_{name}"] = value
        for split in ("validation", "holdout"):
            measured: Measured | None = getattr(point.measured, split)
            for part in ("value", "low", "high"):
                row[f"{front.metric}_{split}_{part}"] = math.nan if measured is None else getattr(measured, part)
        for metric, price in point.prices.items():
            row |= {metric: price.value, f"{metric}_low": price.low, f"{metric}_high": price.high}
            row[f"{metric}_source"] = price.source
        row |= {f"format:{site}": chosen for site, chosen in point.config.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def comparison(front: Front, points: Sequence[Point]) -> pd.DataFrame:
    """Points side by side as text: qualities and prices with intervals and sources.

    Args:
        front: the front.
        points: the rows; repeated ones are shown once.

    Returns:
        Index: the labels of the points; columns named with units.
    """
    import pandas as pd

    rows: dict[str, dict[str, str]] = {}
    for point in points:
        row = {
            f"{label(front.metric)}, {title}": "not measured" if measured is None else measured.text()
            for title, measured in (("held-out", point.measured.holdout), ("validation", point.measured.validation))
        }
        for metric in front.price_metrics:
            price = point.prices.get(metric)
            row[price_label(front, metric)] = "—" if price is None else price.text()
        counts = histogram(front, point)["layers"]
        row["layers per format"] = ", ".join(f"{layers} × {name}" for name, layers in counts.items() if layers)
        row["constraints"] = "met" if point.feasible else "missed"
        rows[point.label if point.id != front.best else f"best: {point.label}"] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def difference(front: Front, one: Point, other: Point) -> pd.DataFrame:
    """The layers in which two points differ: columns ``layer``, ``elements``, and one for each point."""
    import pandas as pd

    rows = [
        (site.name, site.elements, one.config.get(site.name), other.config.get(site.name)) for site in front.model.sites
    ]
    changed = [row for row in rows if row[2] != row[3]]
    return pd.DataFrame(changed, columns=pd.Index(["layer", "elements", one.label, other.label]))
