"""The checked input of every solver here: losses, costs, budgets, ties, pins and offered choices as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import InvalidInput

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer[Any]]
BoolArray = NDArray[np.bool_]


PairTables = Mapping[tuple[int, int], ArrayLike]
"""Two sites to a table [choices of the first, choices of the second]."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A term that depends on the choices of two groups.

    Args:
        first: A group.
        second: Another group.
        loss: Added to the loss, shape [choices, choices].
        rows: Row index to what is added to that row, shape [choices, choices].
    """

    first: int
    second: int
    loss: FloatArray
    rows: Mapping[int, FloatArray]


@dataclass(frozen=True)
class Chance:
    """A row that must hold with some probability: `value + quantile sqrt(value of another row) <= limit`.

    Args:
        row: The row of means.
        variance: The row of variances.
        quantile: Standard normal quantile of the probability, not negative.
    """

    row: int
    variance: int
    quantile: float


@dataclass(frozen=True, eq=False)
class Problem:
    """A multiple-choice program over tied sites: choose one column per group, minimise the loss, keep every row.

    min  sum_g loss[g, x_g] + sum_p pair_p.loss[x_a, x_b]
    subject to   sum_g rows[r, g, x_g] + sum_p pair_p.rows[r][x_a, x_b] <= limits[r]   and   allowed[g, x_g].

    Sites that are tied form one group whose entries are the sums over its members.

    Args:
        loss: Shape [groups, choices]; 0 where a choice is not allowed.
        rows: Shape [rows, groups, choices]; 0 where a choice is not allowed.
        limits: Shape [rows]; `inf` for a row that is only reported.
        allowed: Shape [groups, choices].
        group: Group of every site, shape [sites].
        names: The cost that each row belongs to; a name that stands several times is a maximum over its rows.
        pairs: Terms beyond the additive ones.
        chances: Rows with uncertain entries.
    """

    loss: FloatArray
    rows: FloatArray
    limits: FloatArray
    allowed: BoolArray
    group: IntArray
    names: tuple[str, ...]
    pairs: tuple[Pair, ...] = ()
    chances: tuple[Chance, ...] = ()

    def expand(self, picked: IntArray) -> IntArray:
        """From a choice per group to a choice per site.

        Args:
            picked: Shape [..., groups].

        Returns:
            Shape [..., sites].
        """
        if len(self.group) == len(self.loss):  # no ties: groups are sites, in their order
            return picked
        return np.asarray(picked[..., self.group])

    def with_row(self, table: FloatArray, limit: float, name: str) -> Problem:
        """The same problem with one more row.

        Args:
            table: Shape [groups, choices].
            limit: Largest sum allowed.
            name: How the row is reported.

        Returns:
            A new problem; earlier rows keep their index.
        """
        return replace(
            self,
            rows=np.concatenate([self.rows, table[None]]),
            limits=np.append(self.limits, limit),
            names=(*self.names, name),
        )


def as_table(values: ArrayLike, name: str, allowed: BoolArray | None = None, ndim: int = 2) -> FloatArray:
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
    for site in np.flatnonzero(~mask.any(axis=1)).tolist():
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
    pair_loss: PairTables | None = None,
    pair_costs: Mapping[str, PairTables] | None = None,
) -> Problem:
    """Checks the tables of a caller and merges tied sites into groups.

    Args:
        loss: Shape [sites, choices].
        costs: Name to [sites, choices], or to [steps, sites, choices] for a maximum over steps (peak memory).
        budgets: Name to the largest value allowed of the sum over sites (for every step).
        ties: Groups of sites that take the same choice; groups that share a site are one.
        allowed: Boolean [sites, choices]; entries of `loss` and `costs` elsewhere are ignored.
        pins: Site to its only choice.
        pair_loss: Two sites to a table [choices, choices] that is added to the loss.
        pair_costs: Name of a cost to such tables that are added to it (to every step of it).

    Returns:
        The problem over groups.

    Raises:
        InvalidInput: If shapes disagree, an offered entry is not finite, a budget has no cost or is NaN, a tie or a pin
            is out of range, or a site has no choice left.
    """
    shape = np.shape(loss)
    if len(shape) != 2 or 0 in shape:
        raise InvalidInput(f"loss has shape {shape}, expected [sites, choices] with at least one of each")
    mask = _offered((shape[0], shape[1]), allowed, pins)
    group = _groups(shape[0], ties)
    tables = {
        name: as_table(cost, f"cost {name!r}", mask, 3 if np.ndim(cost) == 3 else 2) for name, cost in costs.items()
    }
    names = [name for name, table in tables.items() for _ in range(1 if table.ndim == 2 else len(table))]
    stacked = [table.reshape(-1, *shape) for table in tables.values()]
    _check_budgets(budgets, costs)
    additive = as_table(loss, "loss", mask)
    rows = np.concatenate(stacked) if stacked else np.zeros((0, *shape))
    if int(group.max()) + 1 < shape[0]:
        mask = _merge_mask(mask, group)
        additive = sum_groups(additive, group, mask)
        rows = np.stack([sum_groups(row, group, mask) for row in rows]) if len(rows) else np.zeros((0, *mask.shape))
    problem = Problem(
        loss=additive,
        rows=rows,
        limits=np.array([budgets.get(name, np.inf) for name in names], dtype=np.float64),
        allowed=mask,
        group=group,
        names=tuple(names),
    )
    return with_pairs(problem, pair_loss or {}, pair_costs or {})


def _check_budgets(budgets: Mapping[str, float], costs: Mapping[str, ArrayLike]) -> None:
    for name, budget in budgets.items():
        if name not in costs:
            raise InvalidInput(f"budget {name!r} has no cost of that name; costs are {sorted(costs)}")
        if np.isnan(budget):
            raise InvalidInput(f"budget {name!r} is NaN")


def _merge_mask(mask: BoolArray, group: IntArray) -> BoolArray:
    merged = np.ones((int(group.max()) + 1, mask.shape[1]), dtype=np.bool_)
    np.logical_and.at(merged, group, mask)
    for empty in np.flatnonzero(~merged.any(axis=1)):
        raise InvalidInput(f"tied sites {np.flatnonzero(group == empty).tolist()} have no choice in common")
    return merged


def sum_groups(table: FloatArray, group: IntArray, allowed: BoolArray) -> FloatArray:
    """Sums a table over the members of every group.

    Args:
        table: Shape [sites, choices].
        group: Shape [sites].
        allowed: Shape [groups, choices].

    Returns:
        Shape [groups, choices], 0 where a choice is not allowed.
    """
    total = np.zeros(allowed.shape)
    np.add.at(total, group, table)
    total[~allowed] = 0.0
    return total


def with_pairs(problem: Problem, pair_loss: PairTables, pair_costs: Mapping[str, PairTables]) -> Problem:
    """Adds terms of two sites; terms inside one group become additive, several between two groups one.

    Args:
        problem: The additive problem.
        pair_loss: Two sites to a table [choices, choices].
        pair_costs: Name to such tables.

    Returns:
        The problem with these terms.

    Raises:
        InvalidInput: If a pair, a name or a table cannot be used.
    """
    if not pair_loss and not pair_costs:
        return problem
    choices = problem.loss.shape[1]
    loss, rows = problem.loss.copy(), problem.rows.copy()
    merged: dict[tuple[int, int], dict[int, FloatArray]] = {}
    terms: list[tuple[str, list[int], PairTables]] = [("pair_loss", [-1], pair_loss)]
    for name, tables in pair_costs.items():
        if name not in problem.names:
            raise InvalidInput(f"pair_costs {name!r} has no cost of that name; costs are {sorted(set(problem.names))}")
        terms.append((f"pair_costs {name!r}", [i for i, known in enumerate(problem.names) if known == name], tables))
    for what, targets, tables in terms:
        for (site, other), values in tables.items():
            if not (0 <= site < len(problem.group) and 0 <= other < len(problem.group)) or site == other:
                raise InvalidInput(f"{what} names the pair {(site, other)}, expected two different sites")
            first, second = int(problem.group[site]), int(problem.group[other])
            offered = problem.allowed[first][:, None] & problem.allowed[second]
            table = as_table(values, f"{what} of sites {(site, other)}", offered)
            if first > second:
                first, second, table = second, first, table.T
            for target in targets:
                if first == second:
                    (loss if target < 0 else rows[target])[first] += np.diagonal(table)
                else:
                    found = merged.setdefault((first, second), {})
                    found[target] = found.get(target, np.zeros((choices, choices))) + table
    pairs = tuple(
        Pair(a, b, found.get(-1, np.zeros((choices, choices))), {r: t for r, t in found.items() if r >= 0})
        for (a, b), found in sorted(merged.items())
    )
    return replace(problem, loss=loss, rows=rows, pairs=pairs)
