"""Which formulas fit statistics: known inputs, levels that can meet, a number per site at the end.

A value has a level: a number per ``site``, a number per drawn ``element`` of the weight, or a number per element of a
matrix ``product`` [rows, rows]. A number per site is repeated where it meets the other two; those two cannot meet.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Literal

from .expression import Formula, Node
from .primitives import PRIMITIVES

Level = Literal["site", "element", "product"]
MAX_SIZE = 20
"""Nodes of the largest formula that is drawn."""

_OF_ELEMENTS = ("normalisation", "aggregate", "cosine", "matrix_product")
_OF_TWO = ("subtract", "divide", "minimum", "maximum", "cosine")
_CONSTANT = {
    "normalise": ("mean", "sum", "variance", "deviation", "frobenius"),
    "min_max": ("min", "max"),
    "softmax": ("mean", "sum", "l1_norm"),
    "unit": ("frobenius",),
}  # aggregates of what is normalised that are the same for every input, but for rounding


def fault(formula: Formula, inputs: Mapping[str, str], max_size: int | None = None) -> str | None:
    """Why statistics with these inputs cannot give the formula a score per site and format.

    Args:
        formula: the formula.
        inputs: name -> kind, ``SiteStatistics.names``.
        max_size: nodes that it may have; ``None``: any number.

    Returns:
        The reason in words; ``None`` if there is none.
    """
    if max_size is not None and formula.size > max_size:
        return f"it has {formula.size} nodes, at most {max_size} are allowed"
    levels = _levels(formula, inputs)
    if isinstance(levels, str):
        return levels
    if levels[formula.root] != "site":
        return "it gives a number per element; aggregate it, as in mean(…) or sum(…)"
    if not depends_on_format(formula, inputs):
        return f"it does not depend on the format; use one of {', '.join(format_inputs(inputs)) or 'no input does'}"
    return None


def idle(formula: Formula, inputs: Mapping[str, str]) -> bool:
    """Whether an operator of a valid formula says nothing.

    It does not where it normalises a number per site, takes a value less itself, or aggregates what is normalised to
    that aggregate.
    """
    levels = _levels(formula, inputs)
    if isinstance(levels, str):
        return True
    for node in formula.nodes:
        alone = all(levels[each] == "site" for each in node.arguments)
        if not node.is_input and PRIMITIVES[node.name].group in _OF_ELEMENTS and alone:
            return True
        if node.name in _OF_TWO and node.arguments[0] == node.arguments[1]:
            return True
        if len(node.arguments) == 1 and node.name in _CONSTANT.get(node.arguments[0].name, ()):
            return True
    return False


def depends_on_format(formula: Formula, inputs: Mapping[str, str]) -> bool:
    """Whether one of its inputs differs from format to format."""
    return any(inputs[name].startswith("format_") for name in formula.inputs if name in inputs)


def format_inputs(inputs: Mapping[str, str]) -> tuple[str, ...]:
    """The inputs that differ from format to format."""
    return tuple(name for name, kind in inputs.items() if kind.startswith("format_"))


def _levels(formula: Formula, inputs: Mapping[str, str]) -> dict[Node, Level] | str:
    """The level of every node, or why it has none."""
    levels: dict[Node, Level] = {}
    for node in formula.nodes:
        if node.is_input and node.name not in inputs:
            near = difflib.get_close_matches(node.name, inputs, n=1, cutoff=0.0)
            return f"unknown input {node.name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        found = _level(node, levels, inputs)
        if found is None:
            return f"{node.name} of elements of the weight and of a matrix product, which do not belong to each other"
        levels[node] = found
    return levels


def _level(node: Node, levels: Mapping[Node, Level], inputs: Mapping[str, str]) -> Level | None:
    """The level of a node whose arguments have theirs; ``None`` where they cannot meet."""
    if node.is_input:
        return "element" if inputs[node.name].endswith("tensors") else "site"
    primitive = PRIMITIVES[node.name]
    met = {levels[each] for each in node.arguments} - {"site"}
    if len(met) > 1:
        return None
    if primitive.aggregates:
        return "site"
    if primitive.group == "matrix_product":
        return "product"
    return met.pop() if met else "site"
