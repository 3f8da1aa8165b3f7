"""What the measured genomes of a joint search amount to: their objectives, who is judged, what the law learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...architecture import Choices, Genome
from ..pareto import non_dominated
from .assessed import Asked, Assessed
from .genomes import Genomes
from .quality_seen import Seen

FloatArray = NDArray[np.float64]
_FINALISTS = 8  # under constraints, beside the measured front
_NORMAL = 1.959964  # half the width of a 95 % interval in standard errors


@dataclass(frozen=True)
class Standing:
    """Measured genomes with their prices.

    Attributes:
        genomes: what was measured.
        assessed: scores and prices of every architecture, by architecture; it grows.
        asked: objectives and constraints.
    """

    genomes: Genomes
    assessed: dict[Choices, Assessed]
    asked: Asked

    def quality(self, genome: Genome) -> float:
        """On the validation data; infinite where there is no measurement."""
        found = self.genomes.of(genome)
        return found.value if found is not None else float("inf")

    def row(self, genome: Genome) -> list[float]:
        """Its objectives, the quality first."""
        return [self.quality(genome), *self.assessed[genome.choices].cost(genome.configuration)]

    def meets(self, genome: Genome) -> bool:
        """Whether it meets the constraints."""
        return self.assessed[genome.choices].meets(genome.configuration)

    def objectives(self) -> FloatArray:
        """Of everything measured that meets the constraints: [genomes, objectives]."""
        rows = [self.row(each) for each in self.genomes.measured() if self.meets(each)]
        return np.array(rows, dtype=np.float64).reshape(len(rows), 1 + len(self.asked.prices))

    def survivors(self, largest: Choices, finalists: int | None) -> list[Genome]:
        """What is measured on held-out data: baselines, the measured front, under constraints the best within them.

        Args:
            largest: the architecture whose float network is judged too.
            finalists: most candidates beside the baselines; ``None``: all of them.
        """
        measured = self.genomes.measured()
        rivals = [each for each in measured if self.genomes.origins[each] in ("uniform", "formats alone")]
        table = [self.row(each) for each in measured]
        keep = non_dominated(np.array(table)) if table else np.zeros(0, dtype=bool)
        front = [each for each, kept in zip(measured, keep, strict=True) if kept]
        if self.asked.constraints:
            within = sorted(filter(self.meets, measured), key=self.quality)
            front = list(dict.fromkeys([*within[:_FINALISTS], *front]))
        kept = front if finalists is None else sorted(front, key=self.quality)[:finalists]
        return list(dict.fromkeys([Genome(largest), *rivals, *kept]))

    def seen(self) -> list[Seen]:
        """Everything measured, float networks too, as the law of qualities learns it."""
        return [
            Seen(
                each.choices,
                self.assessed[each.choices].score(each.configuration),
                found.value,
                (found.high - found.low) / (2 * _NORMAL),
            )
            for each in self.genomes.origins
            if (found := self.genomes.of(each)) is not None
        ]
