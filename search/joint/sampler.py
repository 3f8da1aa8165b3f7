"""Samplers: who asks for genomes to be measured and is told their objectives. What all of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeAlias, runtime_checkable

import numpy as np

from ...errors import InvalidInput
from .decisions import Decisions, FloatArray, G
from .operators import Operators

Prices: TypeAlias = Callable[[Sequence[G]], FloatArray]
"""Objectives that are known without a measurement (latency from a table or a predictor, size): [genomes, prices]."""

_TRIES = 500  # draws in a row that are known already until the space counts as spent


@runtime_checkable
class Sampler(Protocol[G]):
    """Asks for genomes. The same seed and the same asks and tells give the same genomes."""

    name: str

    def ask(self, count: int) -> list[G]:
        """Up to ``count`` different genomes that were neither told nor asked for before; fewer when there are no more.

        A batch is asked for at once: nothing is known of its first genome when its last is chosen.
        """
        ...

    def tell(self, genomes: Sequence[G], values: FloatArray) -> None:
        """Take in results.

        Args:
            genomes: asked for or not; one that was told before has its values replaced.
            values: objectives, all minimised; prices that are known without a measurement come last. NaN where a
                genome could not be measured: [genomes, objectives].
        """
        ...


class BaseSampler(Generic[G]):
    """What was told and asked for, and the operators; a subclass gives ``_next``.

    Args:
        decisions: what there is to decide.
        seed: of every draw.
        prices: objectives that are known without a measurement; ``None``: all are learned by measuring.
    """

    name = ""

    def __init__(self, decisions: Decisions[G], seed: int = 0, prices: Prices[G] | None = None) -> None:
        self.decisions, self.prices = decisions, prices
        self.operators = Operators(decisions)
        self.draw = np.random.default_rng(seed)
        self.told: dict[G, FloatArray] = {}
        self._asked: dict[G, None] = {}
        self._known: tuple[list[G], FloatArray] | None = None

    def ask(self, count: int) -> list[G]:
        """See ``Sampler.ask``."""
        found: list[G] = []
        while len(found) < count:
            genome = self._next()
            if genome is None:
                break
            self._asked[genome] = None
            found.append(genome)
        return found

    def tell(self, genomes: Sequence[G], values: FloatArray) -> None:
        """See ``Sampler.tell``.

        Raises:
            InvalidInput: the shapes do not fit each other or what was told before.
        """
        values = np.asarray(values, dtype=np.float64)
        objectives = next((len(each) for each in self.told.values()), values.shape[-1] if values.ndim == 2 else 0)
        if values.ndim != 2 or len(values) != len(genomes) or values.shape[1] != objectives or not objectives:
            raise InvalidInput(
                f"values of shape {values.shape} for {len(genomes)} genomes; give [genomes, "
                f"{objectives or 'objectives'}]"
            )
        for genome, row in zip(genomes, values, strict=True):
            self.told[genome] = row
        self._asked |= dict.fromkeys(genomes)
        self._known = None

    def _next(self) -> G | None:
        """One genome that is new; ``None``: there are no more."""
        raise NotImplementedError

    def _first_new(self, make: Callable[[], G], tries: int = _TRIES) -> G | None:
        """The first of so many that was not asked for."""
        return next((made for _ in range(tries) if (made := make()) not in self._asked), None)

    def _random(self) -> G | None:
        """A random genome that is new."""
        return self._first_new(lambda: self.operators.random(self.draw))

    def _usable(self) -> tuple[list[G], FloatArray]:
        """What was measured, in the order in which it was first told, and its values [n, objectives]."""
        if self._known is None:
            found = [(genome, row) for genome, row in self.told.items() if np.isfinite(row).all()]
            rows = np.array([row for _, row in found]) if found else np.zeros((0, 0))
            self._known = [genome for genome, _ in found], rows
        return self._known


class RandomSampler(BaseSampler[G]):
    """Uniform over the answers."""

    name = "random"

    def _next(self) -> G | None:
        return self._random()
