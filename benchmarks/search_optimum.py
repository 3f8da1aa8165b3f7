"""How far the best that a search found lies from the optimum: local search around everything that was found.

From what every method ended with, all neighbours within the budget are measured: one group changes by one format, or
two groups do. The best neighbour is the next centre, until none is better: then no exchange of two steps improves it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from bitfront.search.groups import Groups
from bitfront.space import Configuration
from bitfront.store import Store
from search_nets import enter
from search_tasks import SAMPLES, Bed, Notebook

SLACK = 0.25  # average bits that a neighbour may leave unused


def optimum(book: Notebook, nets: Notebook, store: Store, name: str, formats: tuple[str, ...], width: float) -> None:
    """Descend from the best of every method, on the validation data."""
    bed = Bed(name, formats, SAMPLES[name], store)
    prefix = f"{name}/{formats[0]}-{formats[-1]}x{len(formats)}/{width:g}"
    starts = {
        Configuration.from_dict(row["configuration"])
        for key, row in nets.content.items()
        if key.startswith(f"{prefix}/")
    }
    began, measured = time.perf_counter(), 0
    ends: dict[Configuration, float] = {}
    for start in sorted(starts, key=lambda each: bed.measured([each])[0].value):
        if book.over:
            print(f"the time is up, {len(starts)} beginnings in all", flush=True)
            break
        centre, best = start, bed.measured([start])[0].value
        while not book.over and centre not in ends:
            around = list(dict.fromkeys(neighbours(bed, centre, width)))
            values = [each.value for each in bed.measured(around)]
            measured += len(around)
            if min(values, default=best) >= best:
                ends[centre] = best
            else:
                best, centre = min(values), around[int(np.argmin(values))]
        print(f"{prefix}: from {bed.measured([start])[0].value:.5f} to {best:.5f}", flush=True)
    centre = min(ends, key=lambda each: ends[each])
    for reference in ("uniform", "exact measured_kl"):
        book.write(f"{prefix}/{reference}", nets[f"{prefix}/{reference}"])
    extra = {"evaluations": measured, "seconds": time.perf_counter() - began, "ends": sorted(ends.values())}
    enter(book, bed, prefix, "local search", centre, extra)


def neighbours(bed: Bed, centre: Configuration, width: float) -> Iterator[Configuration]:
    """One or two groups changed by one format; within the budget and not far below it."""
    groups = Groups.of(bed.space)
    genes = groups.contract(bed.space.choice(centre))
    steps = [
        (group, int(column))
        for group in range(len(groups))
        for column in (genes[group] - 1, genes[group] + 1)
        if 0 <= column < groups.allowed.shape[1] and groups.allowed[group, column]
    ]
    for first, (one, column) in enumerate(steps):
        for other, second in [(one, column), *steps[first + 1 :]]:
            moved = genes.copy()
            moved[one] = column
            if other != one or second != column:
                moved[other] = second
            found = bed.space.configuration(groups.expand(moved))
            if width - SLACK <= bed.bits(found) <= width * (1 + 1e-9):
                yield found
