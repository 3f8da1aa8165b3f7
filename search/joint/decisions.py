"""A genome as answers to a series of questions, so that operators and samplers need not know what kind of genome it is.

``decide(pick)`` walks through everything that has to be decided and asks ``pick`` for each; what is asked depends on
the answers before (a block beyond the chosen depth is not asked about), so whatever ``pick`` answers, the genome is
valid. Sampling, mutation, crossover and decoding are all a ``pick``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...architecture import ArchitectureSpace, Choices, Genome, Value
from ...errors import InvalidInput
from ...space import SearchSpace
from ..groups import Groups

G = TypeVar("G", bound=Hashable)
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Decision:
    """One question.

    Attributes:
        names: everything that takes the answer: a dimension or a site, or all that are tied to it.
        options: what may be answered; at least one.
        part: what it belongs to.
    """

    names: tuple[str, ...]
    options: tuple[Value, ...]
    part: Literal["architecture", "formats"]

    @property
    def label(self) -> str:
        """The same for the same question in every genome."""
        return f"{self.part}:{self.names[0]}"


Pick: TypeAlias = Callable[[Decision], Value]
"""Answers a question with one of its options."""


class Decisions(Protocol[G]):
    """The questions of one kind of genome."""

    def decide(self, pick: Pick) -> G:
        """Ask every question that exists, in order, and return the genome of the answers."""
        ...

    def answers(self, genome: G) -> dict[str, Value]:
        """What a genome answers to every name that exists in it."""
        ...


@dataclass(frozen=True)
class ArchitectureDecisions:
    """The dimensions of an architecture; dimensions that are tied are asked about once.

    Args:
        space: the dimensions.
    """

    space: ArchitectureSpace

    @cached_property
    def _tied(self) -> dict[str, tuple[str, ...]]:
        return {name: tie for tie in self.space.ties for name in tie}

    def decide(self, pick: Pick) -> Choices:
        """See ``Decisions.decide``."""
        answered: dict[tuple[str, ...], Value] = {}
        found: dict[str, Value] = {}
        for each in self.space.dimensions:
            if not all(parent in found and found[parent] in values for parent, values in each.when):
                continue
            names = self._tied.get(each.name, (each.name,))
            if names not in answered:
                answered[names] = _answer(pick, Decision(names, each.values, "architecture"))
            found[each.name] = answered[names]
        return Choices(tuple(found.items()))

    def answers(self, genome: Choices) -> dict[str, Value]:
        """See ``Decisions.answers``."""
        return {f"architecture:{name}": value for name, value in genome.items()}


@dataclass(frozen=True)
class GenomeDecisions:
    """The dimensions of an architecture, then the format of every site that it has; tied sites are asked about once.

    Args:
        space: the dimensions.
        sites: the sites of an architecture with the formats that each may take.
    """

    space: ArchitectureSpace
    sites: Callable[[Choices], SearchSpace]

    def decide(self, pick: Pick) -> Genome:
        """See ``Decisions.decide``."""
        choices = ArchitectureDecisions(self.space).decide(pick)
        space = self.sites(choices)
        groups = Groups.of(space)
        genes = np.empty(len(groups), dtype=np.int64)
        for gene, (members, allowed) in enumerate(zip(groups.sites, groups.allowed, strict=True)):
            offered = [name for name, may in zip(space.formats, allowed, strict=True) if may]
            decision = Decision(tuple(space.sites[site].name for site in members), tuple(offered), "formats")
            genes[gene] = space.formats.index(str(_answer(pick, decision)))
        return Genome(choices, space.configuration(groups.expand(genes)))

    def answers(self, genome: Genome) -> dict[str, Value]:
        """See ``Decisions.answers``."""
        formats = {f"formats:{site}": name for site, name in genome.configuration.items()}
        return {**ArchitectureDecisions(self.space).answers(genome.choices), **formats}


def _answer(pick: Pick, decision: Decision) -> Value:
    value = pick(decision)
    if value not in decision.options:
        raise InvalidInput(f"{decision.label!r} is one of {list(decision.options)}, got {value!r}")
    return value
