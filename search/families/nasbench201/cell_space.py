"""The six decisions of a NAS-Bench-201 cell as an architecture space."""

from __future__ import annotations

from collections.abc import Mapping

from ....architecture import ArchitectureSpace, Choices, Dimension, Value
from ....hw_models.architecture import OPERATIONS, parse_cell

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""Edges of the cell, from node to node, in the order of the cell's text."""

CELL_SPACE = ArchitectureSpace(
    tuple(Dimension(f"node{end}.from{start}", "operator", OPERATIONS) for start, end in EDGES)
)
"""One dimension of kind ``operator`` an edge, 5^6 = 15,625 architectures."""


def cell_choices(cell: str) -> Choices:
    """The choices of ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``.

    Raises:
        InvalidInput: the text is no cell.
    """
    return CELL_SPACE.from_indices(parse_cell(cell))


def cell_text(choices: Mapping[str, Value]) -> str:
    """The cell of some choices, as NAS-Bench-201 writes it.

    Raises:
        InvalidInput: an unknown dimension, or a missing or impossible value.
    """
    checked = CELL_SPACE.choices(choices)
    nodes = ("".join(f"|{checked[f'node{end}.from{start}']}~{start}" for start in range(end)) for end in (1, 2, 3))
    return "+".join(f"{node}|" for node in nodes)
