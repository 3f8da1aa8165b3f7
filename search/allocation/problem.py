"""The checked input of every solver here: losses, costs, budgets, ties, pins and offered choices as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import InvalidInput

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Problem:
    """A multiple-choice program over tied sites: choose one column per group, minimise the loss, keep every row.

    min  sum_g loss[g, x_g]   subject to   sum_g rows[r, g, x_g] <= limits[r]   and   allowed[g, x_g].

    Sites that are tied form one group whose entries are the sums over its members.

    Args:
        loss: Shape [groups, choices]; 0 where a choice is not allowed.
        rows: Shape [rows, groups, choices]; 0 where a choice is not allowed.
        limits: Shape [rows]; `inf` for a row that is only reported.
        allowed: Shape [groups, choices].
        group: Group of every site, shape [sites].
        names: The cost that each row belongs to; a name that stands several times is a maximum over its rows.
    """

    loss: FloatArray
    rows: FloatArray
    limits: FloatArray
    allowed: BoolArray
    group: IntArray
    names: tuple[str, ...]

    def expand(self, picked: IntArray) -> IntArray:
        """From a choice per group to a choice per site.

        Args:
            picked: Shape [..., groups].

        Returns:
            Shape [..., sites].
        """
        return np.asarray(picked, dtype=np.int64)[..., self.group]


def as_table(values: ArrayLike, name: str, allowed: BoolArray | None, ndim: int = 2) -> FloatArray:
    """A float64 copy of a table that is finite wherever it is allowed.

    Args:
        values: Shape [sites, choices] (or [steps, sites, choices] for `ndim` 3).
        name: How messages call the table.
        allowed: Shape [sites, choices]; entries elsewhere are ignored and become 0.
        ndim: The number of axes expected.

    Returns:
        The table.

    Raises:
        InvalidInput: If the shape is wrong or an offered entry is NaN or infinite.
    """
    try:
        table = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{name} cannot be read as an array of numbers: {error}") from error
    if table.ndim != ndim or 0 in table.shape:
        axes = "[sites, choices]" if ndim == 2 else "[steps, sites, choices]"
        raise InvalidInput(f"{name} has shape {table.shape}, expected {axes} with at least one of each")
    if allowed is not None:
        if table.shape[-2:] != allowed.shape:
            raise InvalidInput(f"{name} has shape {table.shape}, expected {allowed.shape} as the losses")
        table[..., ~allowed] = 0.0
    if not np.isfinite(table).all():
        *_, site, choice = (int(axis[0]) for axis in np.nonzero(~np.isfinite(table)))
        value = table[~np.isfinite(table)][0]
        raise InvalidInput(
            f"{name} is {value} at site {site}, choice {choice}: every offered entry must be finite; "
            "exclude the choice with `allowed` or measure it again"
        )
    return table


def _offered(shape: tuple[int, int], allowed: ArrayLike | None, pins: Mapping[int, int] | None) -> BoolArray:
    sites, choices = shape
    if allowed is None:
        mask = np.ones(shape, dtype=np.bool_)
    else:
        mask = np.array(allowed)
        if mask.dtype != np.bool_ or mask.shape != shape:
            raise InvalidInput(f"allowed has shape {mask.shape} and type {mask.dtype}, expected {shape} and bool")
    for site, choice in (pins or {}).items():
        if not (0 <= site < sites and 0 <= choice < choices):
            raise InvalidInput(f"pin {site}: {choice} is outside of {sites} sites and {choices} choices")
        if not mask[site, choice]:
            raise InvalidInput(f"site {site} is pinned to choice {choice}, which `allowed` excludes")
        mask[site] = False
        mask[site, choice] = True
    for site in np.flatnonzero(~mask.any(axis=1)):
        raise InvalidInput(f"site {site} has no choice left; allow at least one")
    return mask


def _groups(sites: int, ties: Iterable[Iterable[int]] | None) -> IntArray:
    root = list(range(sites))

    def find(site: int) -> int:
        while root[site] != site:
            root[site] = root[root[site]]
            site = root[site]
        return site

    for tie in ties or ():
        members = [int(site) for site in tie]
        for site in members:
            if not 0 <= site < sites:
                raise InvalidInput(f"tie {members} names site {site}, but there are only {sites} sites")
        for site in members[1:]:
            low, high = sorted((find(members[0]), find(site)))
            root[high] = low
    return np.unique([find(site) for site in range(sites)], return_inverse=True)[1].astype(np.int64)


def build(
    loss: ArrayLike,
    costs: Mapping[str, ArrayLike],
    budgets: Mapping[str, float],
    ties: Iterable[Iterable[int]] | None = None,
    *,
    allowed: ArrayLike | None = None,
    pins: Mapping[int, int] | None = None,
) -> Problem:
    """Checks the tables of a caller and merges tied sites into groups.

    Args:
        loss: Shape [sites, choices].
        costs: Name to [sites, choices], or to [steps, sites, choices] for a maximum over steps (peak memory).
        budgets: Name to the largest value allowed of the sum over sites (for every step).
        ties: Groups of sites that take the same choice; groups that share a site are one.
        allowed: Boolean [sites, choices]; entries of `loss` and `costs` elsewhere are ignored.
        pins: Site to its only choice.

    Returns:
        The problem over groups.

    Raises:
        InvalidInput: If shapes disagree, an offered entry is not finite, a budget has no cost or is NaN, a tie or a pin is
            out of range, or a site has no choice left.
    """
    shape = np.shape(loss)
    if len(shape) != 2 or 0 in shape:
        raise InvalidInput(f"loss has shape {shape}, expected [sites, choices] with at least one of each")
    mask = _offered((shape[0], shape[1]), allowed, pins)
    group = _groups(shape[0], ties)
    groups = int(group.max()) + 1
    table = as_table(loss, "loss", mask)
    names: list[str] = []
    rows: list[FloatArray] = []
    for name, cost in costs.items():
        steps = as_table(cost, f"cost {name!r}", mask, 3 if np.ndim(cost) == 3 else 2)
        for step in steps.reshape(-1, *shape):
            names.append(name)
            rows.append(step)
    for name, budget in budgets.items():
        if name not in costs:
            raise InvalidInput(f"budget {name!r} has no cost of that name; costs are {sorted(costs)}")
        if np.isnan(budget):
            raise InvalidInput(f"budget {name!r} is NaN")
    if groups < shape[0]:
        merged = np.ones((groups, shape[1]), dtype=np.bool_)
        np.logical_and.at(merged, group, mask)
        for empty in np.flatnonzero(~merged.any(axis=1)):
            members = np.flatnonzero(group == empty).tolist()
            raise InvalidInput(f"tied sites {members} have no choice in common")
        table = _sum_groups(table, group, merged)
        rows = [_sum_groups(row, group, merged) for row in rows]
        mask = merged
    return Problem(
        loss=table,
        rows=np.stack(rows) if rows else np.zeros((0, groups, shape[1])),
        limits=np.array([budgets.get(name, np.inf) for name in names], dtype=np.float64),
        allowed=mask,
        group=group,
        names=tuple(names),
    )


def _sum_groups(table: FloatArray, group: IntArray, allowed: BoolArray) -> FloatArray:
    total = np.zeros(allowed.shape)
    np.add.at(total, group, table)
    total[~allowed] = 0.0
    return total
