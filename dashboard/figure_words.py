"""What each figure shows, in words: a line under it for people who do not see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..service.labels import count, label, number, unit
from .compare_model import plane
from .figures.front_plane import QUALITY, knee_row, lower_left, values
from .figures.layer_map import parts
from .layers import contributions
from .trust_model import growth
from .view import FloatArray, View

if TYPE_CHECKING:
    import pandas as pd


def front_words(view: View, x: str, y: str, split: str) -> str:
    """How many points of which kind, their range, the best and the knee of the front in this plane.

    Args:
        view: the job.
        x: a price, or ``quality``.
        y: the other axis.
        split: of the quality.
    """
    xs, ys = values(view, x, split), values(view, y, split)
    shown = np.flatnonzero(np.isfinite(xs[:, 0]) & np.isfinite(ys[:, 0]))
    if not len(shown):
        return "No point has both values."
    steps = shown[lower_left(xs[shown, 0], ys[shown, 0])]
    uniform = [row for row in shown.tolist() if view.baselines[row] is not None]
    told = [
        f"{count(len(shown), 'point')}: {int(view.pareto[shown].sum())} Pareto-optimal in the objectives, "
        f"{int((~view.pareto[shown]).sum())} dominated, {len(uniform)} uniform, "
        f"{int((~view.feasible[shown]).sum())} missing a constraint",
        f"{_named(view, x)} from {_range(xs[shown, 0], view, x)}",
        f"{_named(view, y)} from {_range(ys[shown, 0], view, y)}",
        f"{count(len(steps), 'point')} on the front in this plane",
    ]
    bend = knee_row(steps, xs, ys)
    if bend is not None:
        told.append(f"knee {_place(view, bend, x, y, xs, ys)}")
    if view.best in view.rows and view.rows[view.best] in shown:
        told.append(f"best {_place(view, view.rows[view.best], x, y, xs, ys)}")
    return "; ".join(told) + "."


def map_words(view: View, row: int, proxy: str | None) -> str:
    """How many layers store their weights in how many bits, and which layers lose the most."""
    columns = view.choices[row].tolist()
    stored = [parts(view.formats[column])[0] for column in columns]
    told = ", ".join(f"{count(stored.count(bits), 'layer')} with weights in {bits}" for bits in sorted(set(stored)))
    if proxy is not None:
        scores = view.sensitivities[proxy][np.arange(len(columns)), columns]
        order = [index for index in np.argsort(-scores).tolist() if np.isfinite(scores[index])][:3]
        names = ", ".join(f"{view.sites[index].name} ({number(scores[index])})" for index in order)
        told += f"; the largest predicted losses: {names}"
    return told + "."


def fall_words(view: View, row: int, metric: str) -> str:
    """From the finest uniform configuration to the point, and the largest steps."""
    begin, steps = contributions(view, row, metric)
    end = begin + sum(change for _, change in steps)
    largest = sorted(steps, key=lambda step: -abs(step[1]))[:2]
    named = ", ".join(f"{name} {change:+.3g} {unit(metric)}".rstrip() for name, change in largest)
    told = f"{_short(metric)} from {number(begin)} to {number(end)} {unit(metric)}".rstrip()
    return told + (f"; the largest changes: {named}." if named else "; nothing changes.")


def agreement_words(view: View, split: str) -> str:
    """How many measurements lie in the intervals of their predictions."""
    predicted, measured = view.predicted, view.quality[split][:, 0]
    known = np.isfinite(predicted[:, 0]) & np.isfinite(measured)
    if not known.any():
        return "No point has a prediction and a measurement."
    told = f"{count(int(known.sum()), 'point')} predicted and measured"
    wide = known & (predicted[:, 2] > predicted[:, 1])
    if wide.any():
        inside = wide & (predicted[:, 1] <= measured) & (measured <= predicted[:, 2])
        told += f"; {int(inside.sum())} of {int(wide.sum())} measurements lie in the interval of their prediction"
    return told + "."


def growth_words(view: View, metric: str) -> str:
    """Where the hypervolume ended, and after how many evaluations it had 95 % of that."""
    at, volume = growth(view.quality["validation"][:, 0], view.prices[metric][:, 0])
    if not len(at) or volume[-1] <= 0:
        return "Too few measurements."
    soon = int(at[np.argmax(volume >= 0.95 * volume[-1])])
    return (
        f"The front covers {number(volume[-1])} of the box after {count(int(at[-1]), 'evaluation')}, "
        f"95 % of that after {soon}."
    )


def timeline_words(work: pd.DataFrame, attempts: Sequence[float]) -> str:
    """Measurements, workers, attempts, seconds."""
    if not len(work):
        return "No measurement is recorded."
    seconds = float(work["end"].max() - work["start"].min())
    busy = float((work["end"] - work["start"]).sum())
    return (
        f"{count(len(work), 'measurement')} by {count(work['worker'].nunique(), 'worker')} in {number(seconds)} s, "
        f"{number(busy)} s of them measuring; {count(len(attempts), 'attempt')}."
    )


def compare_words(titles: Sequence[str], views: Sequence[View], metric: str, split: str) -> str:
    """Of each job the points on its front and the ends of it."""
    told = []
    for title, view in zip(titles, views, strict=True):
        price, quality = plane(view, metric, split)
        known = np.flatnonzero(np.isfinite(price) & np.isfinite(quality))
        rows = known[lower_left(price[known], quality[known])]
        if len(rows):
            told.append(
                f"{title}: {count(len(rows), 'point')} on the front, {_short(metric)} from "
                f"{_range(price[rows], view, metric)}, {_named(view, QUALITY)} from "
                f"{_range(quality[rows], view, QUALITY)}"
            )
        else:
            told.append(f"{title}: nothing measured on this split")
    return "; ".join(told) + "."


def coverage_words(detail: dict[str, Any]) -> str:
    """Kernels and measured products of a device."""
    kernels = detail["kernels"]
    if not kernels:
        return "No kernel has a table."
    most = max(kernels, key=lambda each: each["rows"])
    return (
        f"{count(len(kernels), 'kernel')}, {sum(each['rows'] for each in kernels):,} measured products; the most, "
        f"{most['rows']:,}, of {most['kernel']}."
    )


def _short(metric: str) -> str:
    return label(metric).split(" (")[0]


def _named(view: View, metric: str) -> str:
    return _short(view.metric if metric == QUALITY else metric)


def _range(found: FloatArray, view: View, metric: str) -> str:
    of_unit = unit(view.metric if metric == QUALITY else metric)
    return f"{number(float(found.min()))} to {number(float(found.max()))} {of_unit}".rstrip()


def _place(view: View, row: int, x: str, y: str, xs: FloatArray, ys: FloatArray) -> str:
    return (
        (
            f"{view.label(row)} at {number(float(xs[row, 0]))} {unit(view.metric if x == QUALITY else x)} and "
            f"{number(float(ys[row, 0]))} {unit(view.metric if y == QUALITY else y)}"
        )
        .replace("  ", " ")
        .rstrip()
    )
