"""The operators that formulas are made of: their names, and what goes in and comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .blockwise import AGGREGATES, NORMALISATIONS
from .elementwise import BINARY, COMMUTATIVE, UNARY

Group = Literal["elementwise", "normalisation", "relative", "aggregate", "binary", "cosine", "matrix_product"]


@dataclass(frozen=True)
class Primitive:
    """An operator.

    Attributes:
        name: as it is written.
        group: ``elementwise`` and ``binary`` keep the level of their arguments (a number per site, elements, elements
            of a matrix product; numbers per site are repeated where they meet elements); ``normalisation`` and
            ``relative`` too; ``aggregate`` and ``cosine`` make a number per site; ``matrix_product`` makes a matrix
            [rows, rows].
        arity: arguments, 1 or 2.
    """

    name: str
    group: Group
    arity: int

    @property
    def commutative(self) -> bool:
        """Whether the arguments may be exchanged."""
        return self.name in COMMUTATIVE

    @property
    def aggregates(self) -> bool:
        """Whether it makes a number per site."""
        return self.group in ("aggregate", "cosine")


def _primitives() -> dict[str, Primitive]:
    groups: list[tuple[Group, list[str], int]] = [
        ("elementwise", list(UNARY), 1),
        ("normalisation", list(NORMALISATIONS), 1),
        ("relative", ["relative"], 1),
        ("aggregate", list(AGGREGATES), 1),
        ("binary", list(BINARY), 2),
        ("cosine", ["cosine"], 2),
        ("matrix_product", ["matrix_product"], 2),
    ]
    return {name: Primitive(name, group, arity) for group, names, arity in groups for name in names}


PRIMITIVES: dict[str, Primitive] = _primitives()
"""Every operator by name."""

SYMBOLS: dict[str, str] = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "matrix_product": "@"}
"""Operators that are written between their arguments."""


def named(*groups: Group) -> tuple[str, ...]:
    """Names of the operators of some groups."""
    return tuple(name for name, each in PRIMITIVES.items() if each.group in groups)
