"""The choice of a search: which measured point is to be shipped, and what it had to face.

1. *Finalists.* What meets the limits and was measured on held-out data competes: the best of the search, every uniform
   configuration, and the exact allocation on each proxy's scores.
2. *Ranking.* By posterior mean (``shrinkage``) of the validation data, of the part of the held-out data that chooses
   (``held_out_parts``), and of what the surrogate foretells of a point from all others.
3. *Rivals.* The search has seen the validation data, so a lead there may be luck. The first in this order is taken that
   is no worse than the best exact allocation and the best uniform configuration on the held-out samples that choose.
4. *Verdict.* On the samples that judge, which no choice saw, it must not be surely worse than the exact allocation, nor
   worse at all than the uniform configuration; otherwise that one is shipped.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import InvalidInput
from ..hw_models import Price
from ..measurement import Difference, Measurement, difference
from ..space import Configuration
from .held_out_parts import choosing, judging
from .shrinkage import excess, excess_foretold, posterior_means


@dataclass(frozen=True)
class Point:
    """One measured configuration.

    Attributes:
        id: short name: ``uniform-w4``, or ``p`` and a number counted from the cheapest.
        configuration: what.
        origin: who proposed it.
        baseline: name of the format if it is a uniform configuration.
        score: additive score of the first proxy.
        predicted: quality that the surrogate foretells.
        validation: measured on the data that the search looked at.
        holdout: measured on data that it never saw; survivors only.
        prices: by metric.
        pareto: not dominated on what was measured on the validation data.
        feasible: meets the constraints.
    """

    id: str
    configuration: Configuration
    origin: str
    baseline: str | None
    score: float
    predicted: float | None
    validation: Measurement
    holdout: Measurement | None
    prices: dict[str, Price]
    pareto: bool
    feasible: bool

    @property
    def quality(self) -> float:
        """The most trustworthy measured quality: held-out where there is one."""
        return (self.holdout or self.validation).value


@dataclass(frozen=True)
class Choice:
    """A point, and why it.

    Attributes:
        point: what is to be shipped.
        reason: in words.
        rival: the best uniform configuration of the same budget that it was compared with; ``None`` where there is
            none, or where the point is that configuration.
        against: the paired difference to the rival on the held-out samples that judge; negative: the point is better.
        exact: the best exact allocation on the scores of a proxy within the same budget; ``None`` as above.
        against_exact: the paired difference to it, likewise.
    """

    point: Point
    reason: str
    rival: Point | None = None
    against: Difference | None = None
    exact: Point | None = None
    against_exact: Difference | None = None

    @property
    def tie(self) -> bool:
        """Whether the interval of the paired difference holds 0: the data does not tell the point from the rival."""
        return self.against is not None and not self.against.better and not self.against.worse

    def plain(self) -> dict[str, Any]:
        """The comparison with the uniform configuration as plain data, for ``front.json``."""
        return {"tie": self.tie, **_compared(self.rival, self.against)}

    def plain_exact(self) -> dict[str, Any] | None:
        """The comparison with the exact allocation; ``None`` where there was none to compare with."""
        return None if self.exact is None else _compared(self.exact, self.against_exact)


def _compared(rival: Point | None, against: Difference | None) -> dict[str, Any]:
    told = None if against is None else asdict(against)
    return {"rival": None if rival is None else rival.id, "difference": told}


def estimates(
    points: Sequence[Point],
    float_model: Mapping[str, Measurement],
    foretold: Mapping[Configuration, float],
) -> dict[Configuration, float]:
    """Posterior means of points, from all that speaks of them; smaller is better, only order and ratios count.

    Args:
        points: that compete; either all or none measured on held-out data.
        float_model: the float model by split.
        foretold: quality that the surrogate foretells of each without having seen it; none counts if one is missing.
    """
    sets = [excess([point.validation for point in points], float_model["validation"])]
    fresh = [choosing(point.holdout) if point.holdout is not None else None for point in points]
    base = choosing(float_model["holdout"])
    if base is not None and all(each is not None for each in fresh):
        sets.append(excess([each for each in fresh if each is not None], base))
    told = None
    if all(point.configuration in foretold for point in points):
        told = excess_foretold(float_model["validation"], [foretold[point.configuration] for point in points])
    means = posterior_means(told, sets)
    return {point.configuration: float(mean) for point, mean in zip(points, means, strict=True)}


def winner(ordered: Sequence[Point], rivals: Collection[Configuration]) -> Point:
    """The first that is no worse than the best of its rivals on the held-out samples that choose.

    Args:
        ordered: that compete, best first.
        rivals: the configurations that everything has to face; those among ``ordered`` count.

    Returns:
        It; the first where there is no rival or no sample to choose by.
    """
    rival = next((point for point in ordered if point.configuration in rivals), None)
    least = _fresh(rival) if rival is not None else None
    if rival is None or least is None:
        return ordered[0]
    ahead = ordered[: ordered.index(rival)]
    return next((point for point in ahead if (found := _fresh(point)) is not None and found <= least), rival)


def within(prices: Mapping[str, Price], limits: Mapping[str, float]) -> bool:
    """Whether prices keep to limits.

    Raises:
        InvalidInput: a limit of something that was not priced.
    """
    unknown = sorted(set(limits) - set(prices))
    if unknown:
        raise InvalidInput(f"unknown budget {unknown[0]!r}; this search priced {', '.join(prices)}")
    return all(prices[name].value <= limit * (1 + 1e-9) for name, limit in limits.items())


def unreachable(what: str, prices: Sequence[Mapping[str, Price]], limits: Mapping[str, float]) -> str:
    """In words: nothing that was measured keeps to the limits, and how near the nearest comes to each.

    Args:
        what: was measured: "configuration", "genome".
        prices: of everything measured.
        limits: as asked.
    """
    least = ", ".join(
        f"{name} <= {limit:g} (smallest measured {min(each[name].value for each in prices):.4g})"
        for name, limit in limits.items()
    )
    return f"no measured {what} meets {least}; raise a budget or run a search with it as a constraint"


def judged_gap(point: Point, rival: Point) -> Difference | None:
    """The paired difference on the held-out samples that judge; ``None`` where one was not measured there."""
    if point.holdout is None or rival.holdout is None:
        return None
    return difference(judging(point.holdout), judging(rival.holdout))


def _fresh(point: Point) -> float | None:
    found = None if point.holdout is None else choosing(point.holdout)
    return None if found is None else found.value
