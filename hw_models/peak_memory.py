r"""Peak memory of the activations over the execution order.

.. math:: \mathrm{peak}(f) = \max_t \sum_{v} \sum_{c \in C_v(f)} b_c \,[\,m_v \le t \le l_c\,]

over operations t: tensor v is made at m_v and stored in the forms C_v that its readers want under configuration f (see
``activation_copies.py``); form c has b_c bytes and is read last at l_c. While an operation runs, what it reads and what
it writes are both alive. Not counted: workspaces of kernels, fragmentation, weights. In MB = 10^6 bytes.

A maximum is no sum over sites. ``PriceTable.joint`` gives the exact value of a configuration. For an allocator,
``peak_rows`` gives one linear constraint per operation (the max-cut rows of Model Compression Toolkit): the peak is
within a budget if every row is. The table's own ``values`` are the row at which the finest configuration peaks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..space import SearchSpace
from .activation_copies import FLOAT, Reader, Stored
from .cost_model import Question
from .prices import PriceTable


@dataclass(frozen=True)
class PeakMemory:
    """The exact peak of a configuration."""

    stored: Stored

    def alive(self, choice: NDArray[np.int64]) -> NDArray[np.float64]:
        """Bytes alive at each operation [steps + 1]; the last entry holds the outputs alone."""
        steps = self.stored.graph.steps
        change = np.zeros(steps + 2)
        for copy in self.stored.copies(choice):
            change[max(copy.made, 0)] += copy.written
            change[copy.last + 1] -= copy.written
        return np.asarray(np.cumsum(change)[: steps + 1], dtype=np.float64)

    def total(self, choice: NDArray[np.int64]) -> float:
        """The peak in MB of a choice array [sites]."""
        return float(self.alive(choice).max()) / 1e6


@dataclass(frozen=True)
class PeakRows:
    """Linear constraints that bound the peak: for every row r, ``base[r] + sum of values[r, site, format]``.

    Attributes:
        steps: the operation of each row.
        values: float64 array [rows, sites, formats] in MB; NaN where a site does not offer the format.
        base: float64 array [rows] in MB.
    """

    steps: tuple[int, ...]
    values: NDArray[np.float64]
    base: NDArray[np.float64]


def peak_rows(space: SearchSpace, batch: int = 1) -> PeakRows:
    """The rows of all operations that can be the peak (a row that another one exceeds everywhere is left out).

    The largest row is the exact peak, except where sites that are not tied read one tensor in the same form: each then
    counts a copy of its own, so the rows are never below the peak.

    Raises:
        InvalidInput: the space was made without tracing the tensors.
    """
    values, base = _rows(space, Stored.of(space, batch))
    kept = _undominated(values, base)
    values = np.where(space.allowed[None], values[kept], np.nan)
    return PeakRows(tuple(int(step) for step in kept), values, base[kept])


def peak_activation_mb(space: SearchSpace, question: Question) -> PriceTable:
    """Peak megabytes of activations of a forward pass of ``question.batch`` samples.

    Raises:
        InvalidInput: the space was made without tracing the tensors.
    """
    stored = Stored.of(space, question.batch)
    rows, base = _rows(space, stored)
    finest = [max(np.flatnonzero(offered)) for offered in space.allowed]
    step = int(np.argmax(base + rows[:, np.arange(len(finest)), finest].sum(axis=1)))
    values = np.where(space.allowed, rows[step], np.nan)
    names = stored.graph.operations
    return PriceTable(
        metric="peak_activation_mb",
        unit="MB",
        values=values,
        sigma=np.zeros_like(values),
        base=float(base[step]),
        source="exact",
        provenance=(
            f"exact: largest sum of the tensors alive over {stored.graph.steps} operations at batch {question.batch}, "
            f"pointwise operations fused, no workspaces; entries per site hold at operation {step} "
            f"({names[step] if step < len(names) else 'output'}), totals of configurations are the maximum"
        ),
        joint=PeakMemory(stored),
    )


def _rows(space: SearchSpace, stored: Stored) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each (site, format) adds at each operation [steps + 1, sites, formats], and the rest [steps + 1]; in MB."""
    steps = stored.graph.steps
    values = np.zeros((steps + 1, len(space.sites), len(space.formats)))
    base = np.zeros(steps + 1)
    group = {site: tie[0] for tie in space.tie_indices for site in tie}
    for activation, factor, readers in zip(stored.graph.activations, stored.factors, stored.readers, strict=True):
        made = max(activation.made, 0)
        float_bytes = factor * activation.width * activation.elements / 1e6
        outside = max((reader.last for reader in readers if reader.site < 0), default=made - 1)
        base[made : outside + 1] += float_bytes
        for site, reader in _together(readers, group, activation.elements).items():
            for column, form in enumerate(stored.forms[site]):
                if form == FLOAT:
                    values[outside + 1 : reader.last + 1, site, column] += float_bytes
                else:
                    kept = factor * stored.bits[site, column] * reader.elements / 8e6
                    values[made : reader.last + 1, site, column] += kept
    return values, base


def _together(readers: tuple[Reader, ...], group: dict[int, int], elements: int) -> dict[int, Reader]:
    """Sites that read a tensor; tied ones, which share its form, as the first of them."""
    found: dict[int, Reader] = {}
    for reader in readers:
        if reader.site < 0:
            continue
        site = group.get(reader.site, reader.site)
        known = found.get(site)
        if known is not None:
            reader = Reader(
                site,
                max(known.last, reader.last),
                min(elements, known.elements + reader.elements),
                known.read + reader.read,
            )
        found[site] = reader
    if any(reader.elements < elements for reader in found.values()):  # slices lie in one copy, freed as a whole
        last = max(reader.last for reader in found.values())
        found = {site: replace(reader, last=last) for site, reader in found.items()}
    return found


def _undominated(values: NDArray[np.float64], base: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows that no other row reaches in every entry; of equal rows the first."""
    rows, first = np.unique(np.column_stack([base, values.reshape(len(base), -1)]), axis=0, return_index=True)
    reached = np.array([(rows >= row).all(axis=1).sum() for row in rows])  # by itself, at least
    return np.sort(first[reached == 1]).astype(np.int64)
