"""Values of the parts of formulas: numbers per site or per element, with no row twice.

A value holds its distinct rows and which of them each format takes, so that what does not depend on the format is
computed once. Formats that agree wherever both are offered share a row (the weight errors of w4 and w4a8), until a
value that tells them apart joins.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from .blockwise import AGGREGATES, NORMALISATIONS, Blocks, cosine, matrix_product, relative
from .elementwise import BINARY, UNARY
from .expression import Formula, Node
from .primitives import PRIMITIVES
from .statistics import SiteStatistics
from .validity import Level

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Value:
    """Values of a part of a formula.

    Attributes:
        rows: [distinct rows, n], n by the level.
        columns: which row each format takes, [formats].
        level: what the n are.
    """

    rows: NDArray[Any]
    columns: tuple[int, ...]
    level: Level


class Memo:
    """Values of parts of formulas on the statistics of one network, the least recently used ones out first.

    Args:
        budget: bytes that the values may take.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.bytes = 0
        self._evaluation: Evaluation | None = None
        self._kept: OrderedDict[str, Value] = OrderedDict()

    def evaluation(self, statistics: SiteStatistics) -> Evaluation:
        """Of formulas on these statistics.

        Raises:
            InvalidInput: the values are of other statistics.
        """
        if self._evaluation is None:
            self._evaluation = Evaluation(statistics, self)
        if self._evaluation.statistics is not statistics:
            raise InvalidInput("a memo of formulas holds values of other statistics; use one memo for each network")
        return self._evaluation

    def get(self, node: Node) -> Value | None:
        """The value of a part, if it is kept."""
        found = self._kept.get(node.digest)
        if found is not None:
            self._kept.move_to_end(node.digest)
        return found

    def put(self, node: Node, value: Value) -> None:
        """Keep a value; one that is larger than the budget is not kept."""
        if value.rows.nbytes > self.budget or node.digest in self._kept:
            return
        self._kept[node.digest] = value
        self.bytes += value.rows.nbytes
        while self.bytes > self.budget:
            self.bytes -= self._kept.popitem(last=False)[1].rows.nbytes


class Evaluation:
    """Values of formulas and their parts."""

    def __init__(self, statistics: SiteStatistics, memo: Memo) -> None:
        self.statistics = statistics
        self.memo = memo
        self.names = statistics.names
        whole = statistics.elements.astype(np.float64)
        counts: dict[Level, NDArray[np.int64]] = {
            "site": np.ones(len(whole), dtype=np.int64),
            "element": statistics.shapes.prod(axis=1),
            "product": statistics.shapes[:, 0] ** 2,
        }
        self.blocks = {level: Blocks(each, whole) for level, each in counts.items()}

    def value(self, formula: Formula) -> Value:
        """Of the root; what the memo holds is not computed, nor what it is made of."""
        values: dict[Node, Value] = {}
        needed = {formula.root}
        for node in reversed(formula.nodes):
            found = self.memo.get(node) if node in needed else None
            if found is not None:
                values[node] = found
            elif node in needed:
                needed.update(node.arguments)
        with np.errstate(all="ignore"):  # what is not finite is found at the end
            for node in formula.nodes:
                if node in needed and node not in values:
                    values[node] = self._computed(node, values)
                    self.memo.put(node, values[node])
        return values[formula.root]

    def _computed(self, node: Node, values: dict[Node, Value]) -> Value:
        if node.is_input:
            return self._input(node.name)
        arguments = [values[each] for each in node.arguments]
        group = PRIMITIVES[node.name].group
        if PRIMITIVES[node.name].arity == 2:
            return self._of_two(node.name, *arguments)
        (value,) = arguments
        blocks = self.blocks[value.level]
        if group == "aggregate":
            return replace(value, rows=AGGREGATES[node.name](value.rows, blocks), level="site")
        if group == "normalisation":
            return replace(value, rows=NORMALISATIONS[node.name](value.rows, blocks))
        if group == "relative":
            return replace(value, rows=relative(value.rows, blocks, self._shares(value)))
        return replace(value, rows=UNARY[node.name](value.rows))

    def _of_two(self, name: str, one: Value, other: Value) -> Value:
        level = one.level if one.level != "site" else other.level
        if name == "matrix_product" and level == "site":
            level = "element"
        left, right, columns = _aligned(self._raised(one, level), self._raised(other, level))
        if name == "matrix_product":
            shapes = self.statistics.shapes
            square = np.stack([shapes[:, 0]] * 2, axis=1)
            product = matrix_product(left, right, shapes if level == "element" else square)
            return Value(product, columns, "product")
        if name == "cosine":
            return Value(cosine(left, right, self.blocks[level]), columns, "site")
        return Value(BINARY[name](left, right), columns, level)

    def _raised(self, value: Value, level: Level) -> Value:
        """A number per site repeated for every element of the level."""
        if value.level == level:
            return value
        return replace(value, rows=self.blocks[level].spread(value.rows, np.dtype(np.float32)), level=level)

    def _shares(self, value: Value) -> Float64:
        """Of each row and site in the mean over all (site, format) that are offered: [rows, sites]."""
        counts = np.zeros((len(value.rows), len(self.statistics.sites)))
        np.add.at(counts, list(value.columns), self.statistics.allowed.T)
        shares: Float64 = counts / counts.sum()
        return shares

    def _input(self, name: str) -> Value:
        kind = self.names[name]
        given: NDArray[Any] = getattr(self.statistics, kind)[name]
        level: Level = "element" if kind.endswith("tensors") else "site"
        if not kind.startswith("format_"):
            return Value(given[None], (0,) * len(self.statistics.formats), level)
        rows = given if kind == "format_tensors" else np.ascontiguousarray(given.T)
        return _merged(rows, self.statistics.allowed, self.blocks[level], level)


def _merged(rows: NDArray[Any], allowed: NDArray[np.bool_], blocks: Blocks, level: Level) -> Value:
    """Formats that agree wherever both are offered share a row."""
    distinct: list[NDArray[Any]] = []
    known: list[NDArray[np.bool_]] = []
    columns = []
    for column, row in enumerate(rows):
        offered = allowed[:, column]
        for index, (other, sites) in enumerate(zip(distinct, known, strict=True)):
            both = blocks.spread(sites & offered, np.dtype(np.bool_))
            if not ((row != other) & both).any():
                fresh = blocks.spread(offered & ~sites, np.dtype(np.bool_))
                distinct[index] = np.where(fresh, row, other)
                known[index] = sites | offered
                columns.append(index)
                break
        else:
            distinct.append(row)
            known.append(offered)
            columns.append(len(distinct) - 1)
    return Value(np.stack(distinct), tuple(columns), level)


def _aligned(one: Value, other: Value) -> tuple[NDArray[Any], NDArray[Any], tuple[int, ...]]:
    """Rows of two values that belong to each other, and which of them each format takes."""
    if one.columns == other.columns or len(other.rows) == 1:
        return one.rows, other.rows, one.columns
    if len(one.rows) == 1:
        return one.rows, other.rows, other.columns
    pairs = list(zip(one.columns, other.columns, strict=True))
    distinct = list(dict.fromkeys(pairs))
    position = {pair: index for index, pair in enumerate(distinct)}
    left, right = (list(side) for side in zip(*distinct, strict=True))
    return one.rows[left], other.rows[right], tuple(position[pair] for pair in pairs)
