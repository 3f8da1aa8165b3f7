r"""Scores of formulas from the statistics of sites.

.. math:: s[l, f] = \mathrm{formula}(\text{statistics of site } l \text{ in format } f)

The score of a configuration is the sum over the sites, so a formula is an additive table by construction.

Parts that many formulas of a population share are computed once (``Memo``), and so is what does not depend on the
format (``values``).
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from .expression import Formula
from .statistics import SiteStatistics
from .validity import fault
from .values import Memo

Float64 = NDArray[np.float64]
_FLAT = 1e-9  # range over the formats relative to the largest size, below which a site does not depend on the format
_PROBE = (4, 8)  # rows and columns of a block that the cheap check looks at


class Unusable(InvalidInput):
    """A formula that gives no score: it does not fit the statistics, or its values are not finite or all alike.

    Attributes:
        reason: in words.
    """

    def __init__(self, formula: Formula, reason: str) -> None:
        super().__init__(f"formula {formula}: {reason}")
        self.reason = reason


def scores(formula: Formula, statistics: SiteStatistics, memo: Memo | None = None) -> Float64:
    """Score every (site, format).

    Args:
        formula: the formula.
        statistics: of the sites.
        memo: keeps the values of parts for the next formulas on the same statistics.

    Returns:
        float64 [sites, formats], NaN where a format is not offered.

    Raises:
        Unusable: it does not fit the statistics, a value is not finite, or every site has one value in all formats.
        InvalidInput: the memo is of other statistics.
    """
    wrong = fault(formula, statistics.names)
    if wrong is not None:
        raise Unusable(formula, wrong)
    value = (memo or Memo(0)).evaluation(statistics).value(formula)
    allowed = statistics.allowed
    table: Float64 = np.where(allowed, value.rows[list(value.columns)].T, np.nan)
    if not np.isfinite(table[allowed]).all():
        row, column = np.argwhere(allowed & ~np.isfinite(table))[0]
        where = f"site {statistics.sites[row]} in {statistics.formats[column]}"
        raise Unusable(formula, f"its value is not finite at {where}")
    if not _varies(table, allowed):
        raise Unusable(formula, "every site has one value in all formats")
    return table


class Scorer:
    """Scores many formulas on the statistics of one network: ``scores`` with a memo, and a cheap first look.

    Args:
        statistics: of the sites.
        cache_bytes: what kept values of parts may take.
    """

    def __init__(self, statistics: SiteStatistics, cache_bytes: int = 256 << 20) -> None:
        self.statistics = statistics
        self._memo = Memo(cache_bytes)

    def scores(self, formula: Formula) -> Float64:
        """Score every (site, format); as the function ``scores``.

        Raises:
            Unusable: as the function ``scores``.
        """
        return scores(formula, self.statistics, self._memo)

    def screen(self, formula: Formula) -> None:
        """The cheap check of a population: ``scores`` on the ``probe`` alone, a tenth of the work or less.

        What fails on the whole blocks may pass it.

        Raises:
            Unusable: as the function ``scores``.
        """
        self._probe.scores(formula)

    @cached_property
    def _probe(self) -> Scorer:
        return Scorer(probe(self.statistics), cache_bytes=16 << 20)


def probe(statistics: SiteStatistics) -> SiteStatistics:
    """The first rows and columns of each block, for a cheap first look: what is unusable there is not worth more."""
    shapes = np.minimum(statistics.shapes, _PROBE)
    starts, widths = statistics.offsets[:-1], statistics.shapes[:, 1]
    taken = np.concatenate(
        [
            start + (np.arange(rows)[:, None] * width + np.arange(columns)).ravel()
            for start, (rows, columns), width in zip(starts, shapes, widths, strict=True)
        ]
    )
    return replace(
        statistics,
        shapes=shapes,
        tensors={name: each[taken] for name, each in statistics.tensors.items()},
        format_tensors={name: each[:, taken] for name, each in statistics.format_tensors.items()},
    )


def _varies(table: Float64, allowed: NDArray[np.bool_]) -> bool:
    """Whether some site has different values in different formats."""
    high = np.where(allowed, table, -np.inf).max(axis=1)
    low = np.where(allowed, table, np.inf).min(axis=1)
    largest = np.where(allowed, np.abs(table), 0.0).max(axis=1)
    return bool((high - low > _FLAT * largest).any())
