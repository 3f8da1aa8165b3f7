"""The result of a joint search: measured genomes, and the choices that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...architecture import Choices, Genome
from ...measurement import Measurement
from ...space import SearchSpace
from ..stage import Ledger
from .assessed import Assessed
from .joint_point import JointChoice, JointPoint
from .judgement import Judgement
from .quality_law import QualityLaw
from .space import Subnets

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


@dataclass
class JointResult:
    """What a joint search found.

    Attributes:
        points: every measured quantized genome, cheapest first.
        float_model: the largest float network by split.
        subnets: build networks of genomes.
        assessed: every architecture that was scored and priced.
        predicted_front: the front of fronts as it is foretold after the last measurement, by rising first price:
            (genome, foretold quality, price objectives).
        law: from (architecture, score) to quality, as it was fitted last.
        refused: architecture -> why it could not be built, scored or priced.
        failures: genome -> why it has no measurement.
        objectives: ``quality`` and prices.
        constraints: price -> largest value allowed.
        metric: of the quality.
        search: how it went: rounds, why it ended.
        seconds: wall time by stage.
        notes: what else is to be told.
        job: the job as asked.
        ledger: the stages that ran and those that were reused.
        record: what it takes to run it again.
        whole_ms: milliseconds of a forward pass of genomes that were exported and timed whole on the CPU.
    """

    points: list[JointPoint]
    float_model: dict[str, Measurement]
    subnets: Subnets = field(repr=False)
    assessed: dict[Choices, Assessed] = field(repr=False)
    predicted_front: list[tuple[Genome, float, tuple[float, ...]]] = field(repr=False)
    law: QualityLaw = field(repr=False)
    refused: dict[Choices, str]
    failures: dict[Genome, str]
    objectives: tuple[str, ...]
    constraints: dict[str, float]
    metric: str
    search: dict[str, Any]
    seconds: dict[str, float]
    notes: list[str] = field(default_factory=list)
    job: dict[str, Any] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    record: dict[str, Any] = field(default_factory=dict)
    whole_ms: dict[Genome, float] = field(default_factory=dict)

    @property
    def price_objectives(self) -> list[str]:
        """The objectives that are prices."""
        return [name for name in self.objectives if name != "quality"]

    @cached_property
    def front(self) -> pd.DataFrame:
        """All measured genomes: id, architecture, formats, predicted and measured quality, prices, flags."""
        import pandas as pd

        rows = []
        for point in self.points:
            row: dict[str, Any] = {"id": point.id, "baseline": point.baseline, "pareto": point.pareto}
            row |= {"feasible": point.feasible, "float_quality": point.float_quality, "score": point.score}
            row |= dict(zip(("predicted", "predicted_low", "predicted_high"), point.predicted, strict=True))
            for split, found in (("validation", point.validation), ("holdout", point.holdout)):
                for key in ("value", "low", "high"):
                    row[f"{split}_{key}"] = getattr(found, key) if found else np.nan
            row |= {metric: price.value for metric, price in point.prices.items()}
            if self.whole_ms:
                row["whole_ms"] = self.whole_ms.get(point.genome, np.nan)
            row |= {"origin": point.origin, "digest": point.genome.digest, **_columns(point.genome)}
            rows.append(row)
        return pd.DataFrame(rows)

    def best(self, max_drop: float | None = None, **budgets: float) -> Genome:
        """The genome to ship.

        Args:
            max_drop: largest loss of quality against the largest float network; the cheapest genome (in the first
                price objective) within it is returned.
            budgets: price -> largest value; on top of the constraints of the search.

        Returns:
            Without ``max_drop`` the best quality within the budgets (without any budget: the knee of the front); never
            one that a uniform configuration of the largest architecture beats on held-out data at no higher price.

        Raises:
            InfeasibleBudget: nothing that was measured meets the budgets.
            InvalidInput: a budget that the search did not price.
        """
        return self.choose(max_drop, budgets).point.genome

    def choose(self, max_drop: float | None = None, budgets: Mapping[str, float] | None = None) -> JointChoice:
        """As ``best``, with the point and the reason in words."""
        judge = Judgement(self.points, self.float_model, self.price_objectives, self.constraints, self.metric)
        return judge.choose(max_drop, budgets)

    def network(self, genome: Genome) -> tuple[nn.Module, SearchSpace]:
        """The plain network of a genome's architecture with its weights in float, and its sites.

        Raises:
            InvalidInput: the family does not have this architecture, or the formats do not fit its sites.
        """
        net = self.subnets.at(genome.choices)
        if genome.configuration.pairs:
            net.space.choice(genome.configuration)
        return net.module, net.space

    def module(self, genome: Genome) -> nn.Module:
        """The plain network of a genome's architecture with its weights in float; ``bf.export`` takes the formats."""
        return self.network(genome)[0]

    def document(self, exports: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
        """Everything as JSON: the content of ``front.json``."""
        from .document import build

        return build(self, list(exports))


def _columns(genome: Genome) -> dict[str, Any]:
    return {"architecture": genome.choices.to_dict(), "formats": genome.configuration.to_dict()}
