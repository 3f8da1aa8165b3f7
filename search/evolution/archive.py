"""The Pareto archive of fitness against formula size, and the choice from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import InvalidInput
from .record import Record


@dataclass(frozen=True)
class Archive:
    """Formulas that no smaller one equals in fitness, by rising size and rising fitness.

    What an archive holds does not depend on the order in which formulas came: of equally fit ones of the same size
    the first in the order of their texts stays.
    """

    records: tuple[Record, ...] = ()

    def with_(self, found: Iterable[Record]) -> Archive:
        """Also these; those without a fitness do not count."""
        usable = [record for record in (*self.records, *found) if record.fitness is not None]
        front: list[Record] = []
        for record in sorted(usable, key=lambda each: (each.size, *each.rank)):
            if not front or record.value > front[-1].value:
                front.append(record)
        return Archive(tuple(front))

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.records)

    @property
    def best(self) -> Record:
        """The fittest.

        Raises:
            InvalidInput: the archive is empty.
        """
        if not self.records:
            raise InvalidInput("no formula could be scored; give the evolution more time or more formulas")
        return self.records[-1]

    def chosen(self) -> Record:
        """The smallest formula within one standard error of the fittest (Breiman et al. 1984, the 1-SE rule).

        Differences below the standard error are chance, and what was fitted to chance is mostly the larger formula.

        Raises:
            InvalidInput: the archive is empty.
        """
        least = self.best.value - standard_error(self.best)
        return next(record for record in self.records if record.value >= least)


def standard_error(record: Record) -> float:
    """Of the mean correlation over networks, from its spread over folds; 0 where there are no folds."""
    folds: Sequence[Sequence[float]] = record.fitness.folds if record.fitness else ()
    variances = [np.var(each, ddof=1) / len(each) for each in folds if len(each) > 1]
    return float(np.sqrt(np.sum(variances)) / len(variances)) if variances else 0.0
