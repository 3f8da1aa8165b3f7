"""Random formulas, mutation and crossover; every formula that comes out fits the inputs and the size.

Structures as in EMQ (Dong et al. 2023, arXiv:2307.10554): a chain of operators on one input, a tree of two branches,
and a graph whose nodes take any earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from ...errors import InvalidInput
from .expression import Formula, Node
from .primitives import PRIMITIVES, named
from .validity import MAX_SIZE, fault, format_inputs, idle

Structure = Literal["chain", "tree", "dag"]
Weights = Mapping[str, float]
STRUCTURES: tuple[Structure, ...] = get_args(Structure)

_ATTEMPTS = 1000
_UNARY = named("elementwise", "normalisation", "relative")
_PAIRS = named("binary", "cosine", "matrix_product")
_AGGREGATES = named("aggregate")


def random_formula(
    generator: np.random.Generator,
    inputs: Mapping[str, str],
    weights: Weights | None = None,
    structure: Structure | None = None,
    *,
    max_size: int = MAX_SIZE,
) -> Formula:
    """Draw a formula.

    Args:
        generator: of the draws.
        inputs: name -> kind, ``SiteStatistics.names``.
        weights: chance of an operator or input relative to others of its group, not negative; 1 where not named.
        structure: of the formula; ``None``: each with the same chance.
        max_size: nodes that it may have.

    Raises:
        InvalidInput: no input depends on the format, or no formula fits.
    """
    if not format_inputs(inputs):
        raise InvalidInput(f"no input of {', '.join(inputs) or 'nothing'} depends on the format; formulas need one")
    draw = _Draw(generator, inputs, weights or {})
    for _ in range(_ATTEMPTS):
        kind = structure or STRUCTURES[generator.integers(len(STRUCTURES))]
        formula = Formula({"chain": draw.chain, "tree": draw.tree, "dag": draw.graph}[kind]())
        if _good(formula, inputs, max_size):
            return formula
    raise InvalidInput(
        f"{_ATTEMPTS} draws gave no valid formula of at most {max_size} nodes; allow more, or weigh less"
    )


def mutate(
    formula: Formula,
    generator: np.random.Generator,
    inputs: Mapping[str, str],
    weights: Weights | None = None,
    *,
    max_size: int = MAX_SIZE,
) -> Formula:
    """Change one place: exchange an operator, an input or a part, insert an operator, or take one out.

    Args:
        formula: stays as it is.
        generator: of the draws.
        inputs: name -> kind, ``SiteStatistics.names``.
        weights: see ``random_formula``.
        max_size: nodes that it may have.

    Returns:
        Another formula that fits the inputs.

    Raises:
        InvalidInput: no change gives a valid formula.
    """
    draw = _Draw(generator, inputs, weights or {})
    changes: tuple[Callable[[Node], Node | None], ...] = (draw.exchanged, draw.inserted, draw.without, draw.fresh)
    for _ in range(_ATTEMPTS):
        node = formula.nodes[generator.integers(formula.size)]
        change = changes[generator.integers(len(changes))](node)
        if change is None:
            continue
        child = formula.replaced({node: change})
        if child != formula and _good(child, inputs, max_size):
            return child
    raise InvalidInput(f"{_ATTEMPTS} changes of {formula} gave no valid formula of at most {max_size} nodes")


def crossover(
    one: Formula,
    other: Formula,
    generator: np.random.Generator,
    inputs: Mapping[str, str],
    *,
    max_size: int = MAX_SIZE,
) -> Formula:
    """Exchange a part of one formula for a part of another (subtree crossover; Koza 1992, Genetic Programming).

    Args:
        one: which receives.
        other: which gives.
        generator: of the draws.
        inputs: name -> kind, ``SiteStatistics.names``.
        max_size: nodes that the child may have.

    Returns:
        The child, of parts of both; the first parent where nothing else is valid.

    Raises:
        InvalidInput: a parent does not fit the inputs.
    """
    for parent in (one, other):
        wrong = fault(parent, inputs)
        if wrong is not None:
            raise InvalidInput(f"formula {parent}: {wrong}")
    pairs = [(taken, given) for taken in one.nodes[:-1] for given in other.nodes if taken != given]
    for index in generator.permutation(len(pairs)):
        taken, given = pairs[index]
        child = one.replaced({taken: given})
        if child not in (one, other) and _good(child, inputs, max_size):
            return child
    return one


def _good(formula: Formula, inputs: Mapping[str, str], max_size: int) -> bool:
    """Whether it fits, and no operator in it is idle."""
    return fault(formula, inputs, max_size) is None and not idle(formula, inputs)


class _Draw:
    """Weighted draws of parts."""

    def __init__(self, generator: np.random.Generator, inputs: Mapping[str, str], weights: Weights) -> None:
        for name, weight in weights.items():
            if not 0 <= weight < np.inf:
                raise InvalidInput(f"the weight of {name} is {weight}; expected a finite number that is not negative")
        self.generator = generator
        self.inputs = inputs
        self.weights = weights

    def pick(self, names: Sequence[str]) -> str:
        """One of some names, by their weights."""
        chances = np.array([self.weights.get(name, 1.0) for name in names], dtype=np.float64)
        if not chances.sum() > 0:
            raise InvalidInput(f"the weights of {', '.join(names)} are all 0; give one of them a chance")
        return names[int(self.generator.choice(len(names), p=chances / chances.sum()))]

    def leaf(self, of_format: bool = False) -> Node:
        """An input, with the same chance of elements and of a number per site, however many there are of each."""
        names = format_inputs(self.inputs) if of_format else tuple(self.inputs)
        offered = [name for name in names if self.weights.get(name, 1.0) > 0]
        of_elements = [name for name in offered if self.inputs[name].endswith("tensors")]
        of_sites = [name for name in offered if name not in of_elements]
        if of_elements and of_sites:
            return Node(self.pick(of_elements if self.generator.random() < 0.5 else of_sites))
        return Node(self.pick(offered or names))

    def wrapped(self, node: Node, low: int, high: int, operators: Sequence[str] = _UNARY) -> Node:
        """Between ``low`` and ``high`` operators around a node."""
        for _ in range(self.generator.integers(low, high + 1)):
            node = Node.of(self.pick(operators), node)
        return node

    def aggregated(self, node: Node) -> Node:
        """As a number per site, now and then with an operator behind."""
        if not self.per_site(node):
            node = Node.of(self.pick(_AGGREGATES), node)
        return self.wrapped(node, 1, 1) if self.generator.random() < 0.2 else node

    def per_site(self, node: Node) -> bool:
        """Whether it is a number per site, whatever it is made of."""
        if node.is_input:
            return not self.inputs[node.name].endswith("tensors")
        primitive = PRIMITIVES[node.name]
        if primitive.group == "matrix_product":
            return False
        return primitive.aggregates or all(self.per_site(each) for each in node.arguments)

    def joined(self, one: Node, other: Node) -> Node:
        pair = (one, other) if self.generator.random() < 0.5 else (other, one)
        return Node.of(self.pick(_PAIRS), *pair)

    def chain(self) -> Node:
        return self.aggregated(self.wrapped(self.leaf(of_format=True), 0, 4))

    def tree(self) -> Node:
        branches = [self.wrapped(self.leaf(of_format), 0, 3) for of_format in (True, False)]
        if self.generator.random() < 0.3:
            return self.joined(*(self.aggregated(branch) for branch in branches))
        return self.aggregated(self.wrapped(self.joined(*branches), 0, 1))

    def graph(self) -> Node:
        nodes = [self.leaf(of_format=True), *(self.leaf() for _ in range(self.generator.integers(1, 3)))]
        for _ in range(self.generator.integers(2, 7)):
            if self.generator.random() < 0.5:
                nodes.append(Node.of(self.pick(_UNARY), self.any_of(nodes)))
            else:
                nodes.append(self.joined(self.any_of(nodes), self.any_of(nodes)))
        return self.aggregated(nodes[-1])

    def any_of(self, nodes: Sequence[Node]) -> Node:
        """One of some nodes, later ones with more chance."""
        chances = np.arange(1.0, len(nodes) + 1)
        return nodes[int(self.generator.choice(len(nodes), p=chances / chances.sum()))]

    def exchanged(self, node: Node) -> Node:
        """Another input or another operator in its place."""
        if node.is_input:
            return self.leaf()
        primitive = PRIMITIVES[node.name]
        if primitive.arity == 2:
            return Node.of(self.pick(_PAIRS), *node.arguments)
        return Node.of(self.pick(_AGGREGATES if primitive.aggregates else _UNARY), *node.arguments)

    def inserted(self, node: Node) -> Node:
        """An operator around it, of two arguments now and then, the other of which is an input."""
        if self.generator.random() < 0.5:
            return Node.of(self.pick(_UNARY), node)
        return self.joined(node, self.leaf())

    def without(self, node: Node) -> Node | None:
        """One of its arguments in its place; ``None`` for an input."""
        return None if node.is_input else node.arguments[self.generator.integers(len(node.arguments))]

    def fresh(self, node: Node) -> Node:
        """A new part in its place: elements for an operator on elements, a number for an aggregate."""
        part = self.wrapped(self.leaf(), 0, 2)
        return self.aggregated(part) if not node.is_input and PRIMITIVES[node.name].aggregates else part
