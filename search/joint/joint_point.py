"""A measured genome, and a choice among them."""

from __future__ import annotations

from dataclasses import dataclass

from ...architecture import Genome
from ...hw_models import Price
from ...measurement import Difference, Measurement
from ...space import Configuration
from ..choice import Point


@dataclass(frozen=True)
class JointPoint:
    """One measured genome.

    Attributes:
        id: short name: ``uniform-w4``, or ``p`` and a number counted from the cheapest.
        genome: architecture and formats.
        origin: who proposed it: ``uniform``, ``formats alone`` (exact allocation on the largest architecture),
            ``anchor`` (the cheapest formats of a new architecture that lose nothing to be seen) or ``nested``.
        baseline: name of the format if it is a uniform configuration of the largest architecture.
        score: additive score of its formats.
        float_quality: of its architecture in float on the validation data, measured or foretold.
        predicted: quality foretold from all that was measured, its interval 95 %.
        validation: measured on the data that the search looked at.
        holdout: measured on data that it never saw; survivors only.
        prices: by metric.
        pareto: not dominated on what was measured on the validation data.
        feasible: meets the constraints.
    """

    id: str
    genome: Genome
    origin: str
    baseline: str | None
    score: float
    float_quality: float
    predicted: tuple[float, float, float]
    validation: Measurement
    holdout: Measurement | None
    prices: dict[str, Price]
    pareto: bool
    feasible: bool

    @property
    def quality(self) -> float:
        """The most trustworthy measured quality: held-out where there is one."""
        return (self.holdout or self.validation).value

    @property
    def plain(self) -> Point:
        """The point as the judgement of a search for formats takes it, named by the genome's digest."""
        key = Configuration((("genome", self.genome.digest),))
        return Point(
            self.id,
            key,
            self.origin,
            self.baseline,
            self.score,
            self.predicted[0],
            self.validation,
            self.holdout,
            self.prices,
            self.pareto,
            self.feasible,
        )


@dataclass(frozen=True)
class JointChoice:
    """A point, and why it.

    Attributes:
        point: what is to be shipped.
        reason: in words.
        rival: the best baseline within the same budget that it was compared with; ``None`` where there is none, or
            where the point is that baseline.
        against: the paired difference to it on the held-out samples that judge; negative: the point is better.
    """

    point: JointPoint
    reason: str
    rival: JointPoint | None = None
    against: Difference | None = None
