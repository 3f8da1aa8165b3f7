"""Sampling, mutation and crossover of genomes with conditions and ties; every child is valid.

What a child and its parent both have to decide is carried over: dimensions by name, formats by site. What exists in
the child alone (a block came back) takes the answer of the nearest earlier question with the same options with
probability ``inherit`` (a new block is built like the block before it, a new layer takes the format of its
neighbour), and is drawn otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic

import numpy as np

from ...architecture import Value
from ...errors import InvalidInput
from .decisions import Decision, Decisions, G

_REMEMBERED = 10_000  # parents


@dataclass(frozen=True)
class Operators(Generic[G]):
    """Genetic operators on whatever ``decisions`` decides.

    Args:
        decisions: what there is to decide.
        inherit: probability that something new is like its neighbour rather than drawn.

    Raises:
        InvalidInput: the probability is none.
    """

    decisions: Decisions[G]
    inherit: float = 0.5
    _known: dict[G, list[Decision]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.inherit <= 1:
            raise InvalidInput(f"inherit={self.inherit}; give a probability from 0 to 1")

    def random(self, draw: np.random.Generator) -> G:
        """Every answer uniform over its options."""
        return self.decisions.decide(lambda decision: _drawn(decision.options, draw))

    def mutated(self, parent: G, draw: np.random.Generator, changes: int = 1) -> G:
        """The parent with other answers to ``changes`` of its questions, or to all where it has fewer.

        Whether a dimension or a format changes is drawn first, each with equal probability where the genome has both:
        a network has many more layers than dimensions. A parent that has nothing else to choose is returned.
        """
        carried = self.decisions.answers(parent)
        changing = _chosen(self._movable(parent), changes, draw)
        walk = _Walk((carried,), self.inherit, draw)

        def pick(decision: Decision) -> Value:
            answer = _carried(decision, carried)
            if decision.label in changing and answer is not None:
                others = tuple(each for each in decision.options if each != answer)
                return walk.noted(decision, _drawn(others, draw))
            return walk.pick(decision)

        return self.decisions.decide(pick)

    def crossed(self, first: G, second: G, draw: np.random.Generator) -> G:
        """Uniform crossover: each answer from one of the parents that have it."""
        walk = _Walk((self.decisions.answers(first), self.decisions.answers(second)), self.inherit, draw)
        return self.decisions.decide(walk.pick)

    def _movable(self, parent: G) -> list[Decision]:
        """The questions of a genome that have another answer; parents come again and again."""
        if parent in self._known:
            return self._known[parent]
        carried = self.decisions.answers(parent)
        found: list[Decision] = []

        def pick(decision: Decision) -> Value:
            answer = _carried(decision, carried)
            if answer is None:
                raise InvalidInput(f"the parent answers {decision.label!r} with none of {list(decision.options)}")
            if len(decision.options) > 1:
                found.append(decision)
            return answer

        self.decisions.decide(pick)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[parent] = found
        return found


class _Walk:
    """Answers as parents do."""

    def __init__(self, parents: tuple[Mapping[str, Value], ...], inherit: float, draw: np.random.Generator) -> None:
        self._parents, self._inherit, self._draw = parents, inherit, draw
        self._last: dict[tuple[Value, ...], Value] = {}

    def pick(self, decision: Decision) -> Value:
        """The answer of one of the parents that have it, else a new one."""
        known = [value for each in self._parents if (value := _carried(decision, each)) is not None]
        return self.noted(decision, _drawn(tuple(known), self._draw) if known else self._new(decision))

    def noted(self, decision: Decision, value: Value) -> Value:
        """Remember an answer for what is like it."""
        self._last[decision.options] = value
        return value

    def _new(self, decision: Decision) -> Value:
        like = self._last.get(decision.options)
        return (
            like if like is not None and self._draw.random() < self._inherit else _drawn(decision.options, self._draw)
        )


def _carried(decision: Decision, answers: Mapping[str, Value]) -> Value | None:
    """What was answered, by the first of the names that existed; ``None`` where none did or it is no option here."""
    for name in decision.names:
        value = answers.get(f"{decision.part}:{name}")
        if value is not None and value in decision.options:
            return value
    return None


def _chosen(movable: list[Decision], changes: int, draw: np.random.Generator) -> set[str]:
    """Labels of the questions that are answered anew."""
    parts = {part: [each.label for each in movable if each.part == part] for part in ("architecture", "formats")}
    chosen: set[str] = set()
    while len(chosen) < min(changes, len(movable)):
        left = [rest for labels in parts.values() if (rest := [label for label in labels if label not in chosen])]
        labels = left[int(draw.integers(len(left)))]
        chosen.add(labels[int(draw.integers(len(labels)))])
    return chosen


def _drawn(options: tuple[Value, ...], draw: np.random.Generator) -> Value:
    return options[int(draw.integers(len(options)))]
