"""What is believed of a table before anything was measured: the scores of the proxies, by tie group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...formats import Format
from ..groups import Groups

if TYPE_CHECKING:
    from ..problem import Problem

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
_FLOOR = 0.01  # of the median of a column: what a score that is not positive, or NaN, counts as


@dataclass(frozen=True, eq=False)
class Prior:
    """Log scores of every proxy by tie group.

    Scores enter as logarithms, so that a correction is a factor and every table stays positive. What is not positive
    (an estimated trace may be negative) or far below the others of its format is lifted to a hundredth of the median
    of its column.

    Attributes:
        groups: the tie groups.
        proxies: names.
        logs: log scores, each proxy scaled to mean 0 over the offered entries: [proxies, groups, formats]; 0 where a
            format is not offered.
        level: mean log score of the first proxy, what was taken off its logs.
        shares: share of every site in its group, by format, from the first proxy: [sites, formats].
        runs: columns in which each format is at least as fine as the one before, in weights and in activations.
    """

    groups: Groups
    proxies: tuple[str, ...]
    logs: FloatArray
    level: float
    shares: FloatArray
    runs: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(problem: Problem) -> Prior:
        """The prior of a problem."""
        groups = Groups.of(problem.space)
        tables = [_lifted(groups.sums(problem.loss(name)), groups.allowed) for name in problem.sensitivities]
        logs = np.stack([np.log(np.where(groups.allowed, table, 1.0)) for table in tables])
        means = logs.sum(axis=(1, 2), keepdims=True) / groups.allowed.sum()
        logs = np.where(groups.allowed, logs - means, 0.0)
        first = next(iter(problem.sensitivities))
        shares = _shares(_lifted(problem.loss(first), problem.space.allowed), groups)
        return Prior(
            groups, tuple(problem.sensitivities), logs, float(means[0, 0, 0]), shares, _runs(problem.space.formats)
        )

    def by_site(self, table: FloatArray) -> FloatArray:
        """A positive table by group as one by site, [sites, formats], whose sums over each group are the table's."""
        spread: FloatArray = table[self.groups.of_site] * self.shares
        return spread


def _lifted(table: FloatArray, allowed: NDArray[np.bool_]) -> FloatArray:
    """Scores [rows, formats] made positive where allowed."""
    positive = table[allowed & (table > 0)]
    least = float(positive.min()) if len(positive) else 1.0
    lifted = np.where(allowed, table, 1.0)
    for column in range(table.shape[1]):
        offered = allowed[:, column]
        known = lifted[offered & (lifted[:, column] > 0), column]
        floor = _FLOOR * float(np.median(known)) if len(known) else 0.01 * least
        above = lifted[:, column] > floor  # not so for NaN
        lifted[offered & ~above, column] = floor
    return lifted


def _shares(scores: FloatArray, groups: Groups) -> FloatArray:
    shares = np.ones_like(scores)
    for group in groups.sites:
        rows = list(group)
        shares[rows] = scores[rows] / scores[rows].sum(axis=0)
    return shares


def _runs(formats: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """Formats cut into runs of consecutive columns that are comparable."""
    bits = [(Format.parse(name).weight_bits, Format.parse(name).activation_bits or 32) for name in formats]
    runs: list[list[int]] = [[0]]
    for column in range(1, len(formats)):
        before, here = bits[column - 1], bits[column]
        finer = here[0] >= before[0] and here[1] >= before[1] and here != before
        if finer:
            runs[-1].append(column)
        else:
            runs.append([column])
    return tuple(tuple(run) for run in runs)
