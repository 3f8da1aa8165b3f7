"""NAS-Bench-201 cells (Dong and Yang 2020, arXiv:2001.00326) as vectors.

A cell is a graph of four nodes; each of its six edges runs one of five operations:
``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``, where ``op~i`` comes from node i.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from .encoding import encode_choices

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
_CELL = re.compile(r"\|(\w+)~0\|\+\|(\w+)~0\|(\w+)~1\|\+\|(\w+)~0\|(\w+)~1\|(\w+)~2\|")
_EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


def parse_cell(cell: str) -> tuple[int, ...]:
    """The operations of the six edges, as indices into ``OPERATIONS``.

    Raises:
        InvalidInput: the text is no cell.
    """
    match = _CELL.fullmatch(cell)
    if match is None or not set(match.groups()) <= set(OPERATIONS):
        raise InvalidInput(f"{cell!r} is no NAS-Bench-201 cell; expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2|")
    return tuple(OPERATIONS.index(name) for name in match.groups())


def encode_cells(cells: Sequence[str], pairs: bool = False) -> NDArray[np.float64]:
    """Cells as vectors [cells, 41], or [cells, 416] with all products of two edges' one-hot entries.

    Thirty one-hot entries (six edges of five operations), the number of each operation, the number of each operation
    on edges that lie on a path from input to output (a compiler may drop the others), and the convolutions on the
    longest path.
    """
    edges = np.array([parse_cell(cell) for cell in cells], dtype=np.int64).reshape(-1, len(_EDGES))
    known, index = np.unique(edges, axis=0, return_inverse=True)
    extra = np.array([_graph(tuple(int(each) for each in row)) for row in known], dtype=np.float64)
    single = encode_choices([len(OPERATIONS)] * len(_EDGES), edges)
    parts = [single, extra[index.reshape(-1)]]
    if pairs:
        hot = single.reshape(-1, len(_EDGES), len(OPERATIONS))
        parts += [
            (hot[:, one, :, None] * hot[:, other, None, :]).reshape(len(edges), -1)
            for one, other in combinations(range(len(_EDGES)), 2)
        ]
    return np.concatenate(parts, axis=1)


def _graph(edges: tuple[int, ...]) -> list[float]:
    reached, leads = [True, False, False, False], [False, False, False, True]
    for (start, end), operation in zip(_EDGES, edges, strict=True):
        reached[end] |= reached[start] and operation != 0
    for (start, end), operation in reversed(list(zip(_EDGES, edges, strict=True))):
        leads[start] |= leads[end] and operation != 0
    longest = [0.0] * 4
    used = [0.0] * len(OPERATIONS)
    for (start, end), operation in zip(_EDGES, edges, strict=True):
        if operation != 0 and reached[start] and leads[end]:
            used[operation] += 1
            longest[end] = max(longest[end], longest[start] + ("conv" in OPERATIONS[operation]))
    return [*(float(edges.count(each)) for each in range(len(OPERATIONS))), *used, longest[3]]
