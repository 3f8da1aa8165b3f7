"""What is known of a formula after it was tried: its fitness, or why it has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .fitness import Fitness


@dataclass(frozen=True)
class Record:
    """A tried formula.

    Attributes:
        digest: of the formula.
        expression: its text.
        size: nodes.
        signature: of the ranks that it gives to the probe configurations; empty if it gives no usable numbers.
        fitness: ``None`` if it was screened out.
        reason: why it was screened out; empty if it was not.
        seconds: what trying it took.
    """

    digest: str
    expression: str
    size: int
    signature: str
    fitness: Fitness | None
    reason: str
    seconds: float

    @property
    def value(self) -> float:
        """The fitness as a number; minus infinity without one."""
        return self.fitness.value if self.fitness else float("-inf")

    @property
    def rank(self) -> tuple[float, int, str]:
        """Sorts the fittest first, of equally fit ones the smallest, then by text."""
        return -self.value, self.size, self.expression

    def row(self) -> dict[str, Any]:
        """As the store keeps it."""
        found = self.fitness
        return {
            "digest": self.digest,
            "expression": self.expression,
            "size": self.size,
            "signature": self.signature,
            "fitness": found.value if found else None,
            "details": {
                "orientation": found.orientation,
                "correlations": list(found.correlations),
                "folds": [list(each) for each in found.folds],
            }
            if found
            else {},
            "reason": self.reason,
            "seconds": self.seconds,
        }

    @staticmethod
    def of(row: Mapping[str, Any]) -> Record:
        """From what the store keeps."""
        details, fitness = row["details"], None
        if row["fitness"] is not None:
            folds = tuple(tuple(each) for each in details["folds"])
            fitness = Fitness(row["fitness"], details["orientation"], tuple(details["correlations"]), folds)
        return Record(
            row["digest"], row["expression"], row["size"], row["signature"], fitness, row["reason"], row["seconds"]
        )
