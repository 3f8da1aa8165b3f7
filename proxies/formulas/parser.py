"""The text form of formulas: a parser by precedence and its inverse.

::

    formula  = { name "=" sum ";" } sum
    sum      = product { ("+" | "-") product }
    product  = factor { ("*" | "/" | "@") factor }
    factor   = "-" factor | "(" sum ")" | operator "(" sum { "," sum } ")" | name
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple

from ...errors import InvalidInput
from .expression import Node
from .primitives import PRIMITIVES, SYMBOLS

if TYPE_CHECKING:
    from .expression import Formula

_TOKEN = re.compile(r"\s*(?:([A-Za-z_][A-Za-z0-9_]*)|(.))", re.DOTALL)
_OPERATORS = {symbol: name for name, symbol in SYMBOLS.items()}
_LOOSE, _TIGHT = "+-", "*/@"
_LONGEST = 4000  # characters of a formula
_DEEPEST = 50  # parentheses and signs in each other


class _Token(NamedTuple):
    text: str
    position: int

    @property
    def is_name(self) -> bool:
        return self.text[:1].isalpha() or self.text[:1] == "_"


def parse(text: str, inputs: Collection[str] | None = None) -> Node:
    """Read a formula; see ``Formula.parse``.

    Raises:
        InvalidInput: not a formula; the message names the position and the nearest known name.
    """
    return _Parser(text, inputs).formula()


def written(formula: Formula) -> str:
    """The text form; operators that occur more than once are named."""
    uses: dict[Node, int] = {}
    for node in formula.nodes:
        for each in node.arguments:
            uses[each] = uses.get(each, 0) + 1
    taken = set(formula.inputs)
    free = (name for name in (f"x{index}" for index in range(1, formula.size + len(taken) + 1)) if name not in taken)
    texts: dict[Node, tuple[str, int]] = {}
    parts = []
    for node in formula.nodes:
        text, strength = _written(node, texts)
        if not node.is_input and uses.get(node, 0) > 1:
            name = next(free)
            parts.append(f"{name} = {text}")
            text, strength = name, 3
        texts[node] = text, strength
    return "; ".join([*parts, texts[formula.root][0]])


def _written(node: Node, texts: dict[Node, tuple[str, int]]) -> tuple[str, int]:
    """Text and how strongly it binds: 1 sum, 2 product, 3 anything else."""
    if node.is_input:
        return node.name, 3
    if node.name not in SYMBOLS:
        return f"{node.name}({', '.join(texts[each][0] for each in node.arguments)})", 3
    symbol = SYMBOLS[node.name]
    strength = 1 if symbol in _LOOSE else 2
    (left, left_strength), (right, right_strength) = (texts[each] for each in node.arguments)
    left = left if left_strength >= strength else f"({left})"
    right = right if right_strength > strength else f"({right})"
    return f"{left} {symbol} {right}", strength


class _Parser:
    def __init__(self, text: str, inputs: Collection[str] | None) -> None:
        self.text = text
        self.inputs = inputs
        found = [_Token(hit[1] or hit[2], hit.start(1 if hit[1] else 2)) for hit in _TOKEN.finditer(text.rstrip())]
        self.tokens = [*found, _Token("", len(text.rstrip()))]
        self.at = 0
        self.named: dict[str, Node] = {}
        self.depth = 0
        if len(text) > _LONGEST:
            raise InvalidInput(f"a formula of {len(text)} characters; expected at most {_LONGEST}")

    def formula(self) -> Node:
        while self.tokens[self.at].is_name and self.tokens[min(self.at + 1, len(self.tokens) - 1)].text == "=":
            name = self.next()
            if name.text in PRIMITIVES or name.text in self.named or name.text in (self.inputs or ()):
                raise self.wrong(name, f"the name {name.text!r} is taken; choose another")
            self.next()
            self.named[name.text] = self.sum()
            self.expect(";")
        node = self.sum()
        if self.tokens[self.at].text:
            raise self.wrong(self.tokens[self.at], "expected an operator or the end")
        return node

    def sum(self) -> Node:
        return self.joined(_LOOSE)

    def product(self) -> Node:
        return self.joined(_TIGHT)

    def joined(self, symbols: str) -> Node:
        read = self.product if symbols == _LOOSE else self.factor
        node = read()
        while self.tokens[self.at].text and self.tokens[self.at].text in symbols:
            operator = _OPERATORS[self.next().text]
            node = Node.of(operator, node, read())
        return node

    def factor(self) -> Node:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.wrong(self.tokens[self.at], f"nested more than {_DEEPEST} deep; name parts: a = …; b")
        node = self.atom()
        self.depth -= 1
        return node

    def atom(self) -> Node:
        token = self.next()
        if token.text == "-":
            return Node.of("negate", self.factor())
        if token.text == "(":
            node = self.sum()
            self.expect(")")
            return node
        if not token.is_name:
            raise self.wrong(token, "expected an input, an operator with arguments, or a parenthesis")
        if self.tokens[self.at].text == "(":
            return self.call(token)
        if token.text in self.named:
            return self.named[token.text]
        if token.text in PRIMITIVES:
            raise self.wrong(token, f"{token.text} is an operator; give its arguments in parentheses")
        if self.inputs is not None and token.text not in self.inputs:
            raise self.wrong(token, f"unknown input {token.text!r}{_nearest(token.text, [*self.inputs, *self.named])}")
        return Node(token.text)

    def call(self, name: _Token) -> Node:
        if name.text not in PRIMITIVES:
            raise self.wrong(name, f"unknown operator {name.text!r}{_nearest(name.text, PRIMITIVES)}")
        self.next()
        arguments = [self.sum()]
        while self.tokens[self.at].text == ",":
            self.next()
            arguments.append(self.sum())
        self.expect(")")
        arity = PRIMITIVES[name.text].arity
        if len(arguments) != arity:
            raise self.wrong(name, f"{name.text} takes {arity} argument{'s' * (arity > 1)}, got {len(arguments)}")
        return Node.of(name.text, *arguments)

    def next(self) -> _Token:
        token = self.tokens[self.at]
        if token.text:
            self.at += 1
        return token

    def expect(self, text: str) -> None:
        token = self.next()
        if token.text != text:
            raise self.wrong(token, f"expected {text!r}")

    def wrong(self, token: _Token, what: str) -> InvalidInput:
        found = f"{token.text!r}" if token.text else "the end"
        return InvalidInput(f"formula {self.text!r}, character {token.position + 1} ({found}): {what}")


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f"; did you mean {near[0]!r}?" if near else ""
