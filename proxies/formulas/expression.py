"""Formulas as immutable expressions with shared parts, in a canonical form: equal formulas compare equal.

A formula is a directed acyclic graph of operators over inputs; a chain and a tree are special cases. Nodes are told
apart by the digest of their content, so that what occurs twice is one node, is counted once and is computed once.

>>> formula = Formula.parse("mean(square(error) * log_abs(gradient))")
>>> str(formula)
'mean(log_abs(gradient) * square(error))'
>>> formula.size, formula.inputs
(6, ('error', 'gradient'))
>>> formula == Formula.parse("mean(log_abs(gradient) * square(error))")
True
>>> str(Formula.parse("g = square(gradient); mean(g / exp(g))"))
'x1 = square(gradient); mean(x1 / exp(x1))'
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from .primitives import PRIMITIVES


@dataclass(frozen=True, eq=False, repr=False)
class Node:
    """An input (no arguments) or an operator with its arguments; make operators with ``Node.of``.

    Attributes:
        name: of the input or the operator.
        arguments: of the operator, in canonical order.
        digest: of the content (32 hex digits).
        weight: operators and inputs when nothing is shared.
    """

    name: str
    arguments: tuple[Node, ...] = ()
    digest: str = field(init=False)
    weight: int = field(init=False)

    def __post_init__(self) -> None:
        content = "(".join([self.name, *(each.digest for each in self.arguments)])
        object.__setattr__(self, "digest", hashlib.blake2b(content.encode(), digest_size=16).hexdigest())
        object.__setattr__(self, "weight", 1 + sum(each.weight for each in self.arguments))

    @staticmethod
    def of(operator: str, *arguments: Node) -> Node:
        """An operator over arguments; those of a commutative one are sorted by size, name and content."""
        if PRIMITIVES[operator].commutative:
            arguments = tuple(sorted(arguments, key=lambda node: (node.weight, node.name, node.digest)))
        return Node(operator, arguments)

    @property
    def is_input(self) -> bool:
        """Whether it is an input."""
        return not self.arguments

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Node of {Formula(self)}"


@dataclass(frozen=True, repr=False)
class Formula:
    """An expression that gives every (site, format) a score.

    Attributes:
        root: its last operator.
    """

    root: Node

    @staticmethod
    def parse(text: str, inputs: Collection[str] | None = None) -> Formula:
        """Read the text form.

        Args:
            text: inputs, operators between or before their arguments in parentheses, and parts named before their use:
                ``a = square(error); mean(a * gradient)``.
            inputs: names that inputs may have; ``None``: any.

        Raises:
            InvalidInput: not a formula; the message names the position and the nearest name that is known.
        """
        from .parser import parse

        return Formula(parse(text, inputs))

    def __str__(self) -> str:
        from .parser import written

        return written(self)

    def __repr__(self) -> str:
        return f"Formula.parse({str(self)!r})"

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node once, arguments before what uses them."""
        found: dict[Node, None] = {}
        open_nodes = [self.root]
        while open_nodes:
            node = open_nodes[-1]
            missing = [each for each in reversed(node.arguments) if each not in found]
            open_nodes.extend(missing)
            if not missing:
                found[open_nodes.pop()] = None
        return tuple(found)

    @property
    def size(self) -> int:
        """Nodes, inputs among them; what is shared counts once."""
        return len(self.nodes)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, sorted."""
        return tuple(sorted(node.name for node in self.nodes if node.is_input))

    @property
    def digest(self) -> str:
        """Of the canonical form (32 hex digits): equal for equal formulas."""
        return self.root.digest

    def replaced(self, changes: Mapping[Node, Node]) -> Formula:
        """The formula with nodes exchanged, wherever they occur; canonical again."""
        made: dict[Node, Node] = {}
        for node in self.nodes:
            if node in changes:
                made[node] = changes[node]
            elif node.is_input:
                made[node] = node
            else:
                made[node] = Node.of(node.name, *(made[each] for each in node.arguments))
        return Formula(made[self.root])
