r"""Two whole formulas under one operator: a formula of two branches that each were worth something alone.

Subtree crossover rarely keeps both parents whole, but two proxies often know different things: a curvature how much
the loss minds an error, a signal-to-noise ratio how large it is beside the weights. Formulas have units of their own,
so they meet in a product or a quotient, or in a sum, a maximum or a minimum of both relative to their mean size.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .expression import Formula, Node
from .validity import MAX_SIZE, fault, idle

OPERATORS = ("multiply", "multiply", "divide", "add", "maximum", "minimum")
"""What joins, each entry with the same chance."""
_OF_ONE_UNIT = frozenset({"add", "maximum", "minimum"})


def join(
    one: Formula,
    other: Formula,
    generator: np.random.Generator,
    inputs: Mapping[str, str],
    *,
    max_size: int = MAX_SIZE,
) -> Formula:
    """Join two formulas that give a number per site and format.

    Args:
        one: a branch.
        other: the other branch.
        generator: draws the operator.
        inputs: name -> kind, ``SiteStatistics.names``.
        max_size: nodes that the child may have.

    Returns:
        The child; the first formula where it would be too large or say nothing.
    """
    name = OPERATORS[generator.integers(len(OPERATORS))]
    branches = (one.root, other.root)
    if name in _OF_ONE_UNIT:
        branches = (Node.of("relative", one.root), Node.of("relative", other.root))
    child = Formula(Node.of(name, *branches))
    return one if fault(child, inputs, max_size) is not None or idle(child, inputs) else child
