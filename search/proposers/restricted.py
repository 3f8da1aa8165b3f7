"""A smaller space around a configuration: only the sites that matter may change, and only by a few formats.

The problem that comes back has the same sites, columns and prices, so its configurations are those of the whole
problem; every proposer searches it as any other. Results from outside it may be told: they are known, never parents.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from ...errors import InvalidInput
from ..groups import Groups, IntArray
from ..problem import Problem
from .limits import FloatArray


def restricted(problem: Problem, centre: IntArray, groups: Collection[int] | None = None, radius: int = 1) -> Problem:
    """The problem with fewer formats offered.

    Args:
        problem: the whole one.
        centre: columns [sites] around which is searched.
        groups: tie groups (indices of ``Groups.of(problem.space)``) that may change; ``None``: all.
        radius: how many formats up and down, in the order of precision of what the group offers.

    Returns:
        A problem over the same sites and formats; other groups offer only the format that they have at the centre.

    Raises:
        InvalidInput: a group does not exist, the radius is negative, or the centre is not of the space.
    """
    space, every = problem.space, Groups.of(problem.space)
    free = set(range(len(every)) if groups is None else groups)
    if radius < 0 or not free <= set(range(len(every))):
        raise InvalidInput(f"groups {sorted(free)} with radius {radius}; expected some of {len(every)} and 0 or more")
    genes = every.contract(space.choice(space.configuration(centre)))
    sites = list(space.sites)
    for index, members in enumerate(every.sites):
        offered = np.flatnonzero(every.allowed[index])
        place = int(np.searchsorted(offered, genes[index]))
        reach = radius if index in free else 0
        names = tuple(space.formats[at] for at in offered[max(0, place - reach) : place + reach + 1])
        for member in members:
            sites[member] = replace(sites[member], formats=names)
    return replace(problem, space=replace(space, sites=sites), _fronts={})


def sites_that_matter(problem: Problem, table: FloatArray, count: int) -> list[int]:
    """The tie groups whose formats differ most in loss: where a wrong choice costs most.

    Args:
        problem: for ties and what is offered.
        table: losses [sites, formats], of a proxy or a surrogate.
        count: how many.

    Returns:
        Indices of groups, the largest range first; ties in the order of the groups.
    """
    groups = Groups.of(problem.space)
    sums = groups.sums(np.where(problem.space.allowed, table, 0.0))
    ranges = np.nanmax(sums, axis=1) - np.nanmin(sums, axis=1)
    return [int(index) for index in np.argsort(-ranges, kind="stable")[:count]]
