"""One point layer by layer: what each format costs and loses, why it is what it is, and how it differs from another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .view import View

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Step:
    """A change of one tie group that would be next, if there were a little more or less to spend.

    Attributes:
        sites: the layers that change together.
        now: their format.
        then: the other one.
        gain: by how much the score falls (a finer format) or rises (a coarser one).
        price: by how much the price rises or falls.
        rate: gain for each unit of price.
    """

    sites: tuple[str, ...]
    now: str
    then: str
    gain: float
    price: float
    rate: float


def layer_table(view: View, row: int, proxy: str | None, metric: str | None) -> pd.DataFrame:
    """A row for every layer of a point.

    Args:
        view: the job.
        row: of the point.
        proxy: whose scores.
        metric: the price.

    Returns:
        Columns ``layer``, ``kind``, ``weights``, ``format``, ``score`` (predicted loss of the layer), ``price``,
        ``next finer``, ``score saved``, ``price added``, ``saved per unit`` (marginal loss for each unit of the price
        that the best finer format of its tie group buys), in the order of the forward pass. NaN where not known.
    """
    import pandas as pd

    groups = group_of(view)
    up = {step.sites[0]: step for step in steps(view, row, proxy, metric, finer=True)} if proxy and metric else {}
    rows = []
    for index, site in enumerate(view.sites):
        column = int(view.choices[row, index])
        step = up.get(view.sites[groups[index][0]].name)
        rows.append(
            (
                site.name,
                site.kind,
                site.elements,
                view.formats[column],
                view.sensitivities[proxy][index, column] if proxy else np.nan,
                view.price_tables[metric].values[index, column] if metric else np.nan,
                step.then if step else "",
                step.gain if step else np.nan,
                step.price if step else np.nan,
                step.rate if step else np.nan,
            )
        )
    names = ["layer", "kind", "weights", "format", "score", "price"]
    names += ["next finer", "score saved", "price added", "saved per unit"]
    return pd.DataFrame(rows, columns=pd.Index(names))


def steps(view: View, row: int, proxy: str, metric: str, *, finer: bool) -> list[Step]:
    """For every tie group the change with the most score for each unit of price; the best bargain first.

    Args:
        view: the job.
        row: of the point.
        proxy: whose scores.
        metric: the price.
        finer: changes that lower the score and raise the price; else those that lower the price, the one that raises
            the score least for each unit saved.

    Returns:
        At most one step a group; groups without such a change are left out.
    """
    scores, table = view.sensitivities[proxy], view.price_tables[metric].values
    found = []
    for group in dict.fromkeys(group_of(view)):
        rows = list(group)
        column = int(view.choices[row, rows[0]])
        gain = scores[rows][:, [column]].sum() - scores[rows].sum(axis=0)  # NaN where one does not offer it
        price = table[rows].sum(axis=0) - table[rows][:, [column]].sum()
        best = None
        for other in range(len(view.formats)):
            if other == column or not (np.isfinite(gain[other]) and np.isfinite(price[other])):
                continue
            if finer != (price[other] > 0) or price[other] == 0 or (finer and gain[other] <= 0):
                continue
            rate = float(gain[other] / price[other])
            if best is None or (rate > best.rate if finer else rate < best.rate):
                names = tuple(view.sites[index].name for index in rows)
                formats = view.formats[column], view.formats[other]
                best = Step(names, *formats, float(gain[other]), float(price[other]), rate)
        if best is not None:
            found.append(best)
    return sorted(found, key=lambda step: -step.rate if finer else step.rate)


def reason(view: View, row: int, index: int, proxy: str, metric: str) -> str:
    """Why a layer has its format: what the neighbours of its choice would cost and save, and what holds it.

    Args:
        view: the job.
        row: of the point.
        index: of the layer.
        proxy: whose scores.
        metric: the price.

    Returns:
        A few sentences.
    """
    from ..service.labels import label, number, unit

    group = group_of(view)[index]
    named = label(metric).split(" (")[0]
    told = []
    if len(group) > 1:
        others = [view.sites[other].name for other in group if other != index]
        why = next((tie.reason for tie in view.ties if view.sites[index].name in tie.sites), "")
        told.append(f"It shares its format with {', '.join(others)}" + (f" ({why})." if why else "."))
    mine = view.sites[group[0]].name
    for finer, word in ((True, "finer"), (False, "coarser")):
        every = steps(view, row, proxy, metric, finer=finer)
        step = next((each for each in every if each.sites[0] == mine), None)
        if step is None:
            told.append(f"No {word} format " + ("lowers its score." if finer else f"lowers its {named}."))
            continue
        place = every.index(step) + 1
        price = f"{number(abs(step.price))} {unit(metric)}".rstrip()
        if finer:
            told.append(
                f"{step.then} would lower the score by {number(step.gain)} for {price} more {named}: "
                f"{number(step.rate)} for each {unit(metric) or 'unit'}, bargain {place} of {len(every)}."
            )
        else:
            told.append(
                f"{step.then} would save {price} of {named} and raise the score by {number(-step.gain)}: "
                f"{number(step.rate)} for each {unit(metric) or 'unit'}, {place} of {len(every)} in what hurts least."
            )
    limit = view.constraints.get(metric)
    if limit is not None:
        left = limit - float(view.prices[metric][row, 0])
        told.append(f"The constraint on {named} leaves {number(left)} {unit(metric)}.")
    return " ".join(told)


def changes(view: View, one: int, other: int) -> pd.DataFrame:
    """The layers in which two points differ: ``layer``, ``weights``, a column for each point."""
    import pandas as pd

    rows = np.flatnonzero(view.choices[one] != view.choices[other])
    data = [
        (
            view.sites[index].name,
            view.sites[index].elements,
            _format(view, one, index),
            _format(view, other, index),
        )
        for index in rows.tolist()
    ]
    return pd.DataFrame(data, columns=pd.Index(["layer", "weights", view.label(one), view.label(other)]))


def _format(view: View, row: int, index: int) -> str:
    column = int(view.choices[row, index])
    return view.formats[column] if column >= 0 else "no such layer"


def contributions(view: View, row: int, metric: str, start: int | None = None) -> tuple[float, list[tuple[str, float]]]:
    """From the finest uniform configuration to a point, kind of layer and format by kind of layer and format.

    Args:
        view: the job.
        row: of the point.
        metric: a price.
        start: column of the format to start from; by default the finest of the space, where a layer offers it.

    Returns:
        The price at the start and the steps in order: (what changed, by how much). Their sum is the price of the point;
        where the price is no sum over layers the last step, ``neighbours``, is what is left.
    """
    table = view.price_tables[metric]
    offered = np.isfinite(table.values)
    finest = np.array([np.flatnonzero(row)[-1] for row in offered]) if start is None else np.full(len(offered), start)
    sites = np.arange(len(view.sites))
    before, after = table.values[sites, finest], table.values[sites, view.choices[row]]
    begin = table.base + float(before.sum())
    found: dict[str, float] = {}
    for index in sites.tolist():
        if after[index] != before[index]:
            name = f"{view.sites[index].kind} to {view.formats[view.choices[row, index]]}"
            found[name] = found.get(name, 0.0) + float(after[index] - before[index])
    steps_found = sorted(found.items(), key=lambda item: item[1])
    rest = float(view.prices[metric][row, 0]) - begin - sum(change for _, change in steps_found)
    if abs(rest) > 1e-9 * max(1.0, abs(begin)):
        steps_found.append(("neighbours", rest))
    return begin, steps_found


def group_of(view: View) -> list[tuple[int, ...]]:
    """For every layer the layers that share its format, itself included."""
    position = {name: index for index, name in enumerate(view.names)}
    found: list[tuple[int, ...]] = [(index,) for index in range(len(view.sites))]
    for tie in view.ties:
        group = tuple(sorted(position[name] for name in tie.sites))
        for index in group:
            found[index] = group
    return found
