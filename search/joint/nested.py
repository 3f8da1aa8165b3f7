"""Nested search: architectures are proposed, the formats of each solved exactly, the front of fronts is measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...architecture import Choices, Genome
from ...errors import BitfrontError, InfeasibleBudget
from ..problem import FLOAT
from ..work import Rounds
from .assessed import Asked, Assessed, Predictor, assess
from .genomes import Genomes
from .merged import Merged, merge
from .proposer import Proposer, Told, told_of
from .quality_law import QualityLaw
from .scale import Scale
from .selection import selected
from .space import Subnets
from .standing import Standing

FloatArray = NDArray[np.float64]
_ROUNDS = 10  # into which the evaluations after the baselines are cut
_SMALLEST, _LARGEST = 4, 24  # evaluations of a round
_TRIES = 8  # times that a round asks for architectures, as long as some meet no constraint


@dataclass
class Nested:
    """Rounds of one joint search and what they found.

    Round 1 measures the baselines: the largest float network, every uniform configuration on it and the smallest float
    network, which together say how far qualities reach (``Scale``), and under constraints the exact allocation on the
    largest, which is what a search for formats alone would begin with. Then, round by round: architectures are
    proposed, each is scored and priced and the exact fronts of its formats solved. Of each new one the cheapest formats
    are measured that are foretold to lose less than can be seen (its anchor), or its float network where there are
    none; with a predictor of float networks neither. All fronts, as the law of everything measured foretells them, are
    merged; of the merged front the points are measured that promise most hypervolume (under constraints every second
    one is the best in quality); and the proposer is told. The last round measures the survivors on held-out data. Float
    networks count as evaluations, the largest excepted. What the store knows is not asked for again; the proposals
    depend on the seed and the measurements alone, whoever makes them, unless the time is limited.

    Args:
        subnets: build the networks.
        asked: objectives, constraints, device, proxy.
        genomes: what is known, and how more is found out.
        proposer: of architectures.
        evaluations: genomes to measure, uniform ones included.
        deadline: no further round of candidates starts after this ``time.perf_counter()``; ``None``: no limit.
        workers: how many genomes are evaluated at a time, to foresee how many fit before the deadline.
        predictor: foretells the quality of float networks; ``None``: something of each architecture is measured first.
        finalists: most candidates measured on held-out data beside the baselines; ``None``: the measured front, under
            constraints the 8 best too.

    Attributes:
        assessed: every architecture so far.
        refused: architecture -> why it could not be built, scored or priced.
        law: from (architecture, score) to quality, fitted to everything measured; ``None`` before the baselines are.
        log: one line for each round.
        ended: why the search ended.
    """

    subnets: Subnets
    asked: Asked
    genomes: Genomes
    proposer: Proposer
    evaluations: int
    deadline: float | None = None
    workers: int = 1
    predictor: Predictor | None = None
    finalists: int | None = None
    assessed: dict[Choices, Assessed] = field(default_factory=dict)
    refused: dict[Choices, str] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    ended: str = ""
    law: QualityLaw | None = None
    scale: Scale | None = None
    _fitted_to: tuple[int, int] = (0, 0)

    @property
    def standing(self) -> Standing:
        """What was measured, with its prices."""
        return Standing(self.genomes, self.assessed, self.asked)

    @property
    def largest(self) -> Choices:
        """The architecture that the baselines are of."""
        return self.subnets.joint.family.architecture.largest()

    @property
    def smallest(self) -> Choices:
        """The architecture that is tried first, whoever proposes the others."""
        return self.subnets.joint.family.architecture.smallest()

    def rounds(self) -> Rounds:
        """The search as a coroutine: yields work, is sent outcomes."""
        base = self.assessed[self.largest] = assess(self.subnets, self.largest, self.asked)
        uniforms = [Genome(self.largest, found) for found in dict.fromkeys(base.problem.space.uniforms().values())]
        with self.genomes.bar("search", max(self.evaluations, len(uniforms)) + 1):
            yield from self.genomes.measure("float network", [Genome(self.largest)], "float")
            if self.genomes.of(Genome(self.largest)) is None:
                raise BitfrontError(f"the largest float network: {self.genomes.failures[Genome(self.largest)]}")
            yield from self.genomes.measure("uniform baselines", uniforms, "uniform")
            left = self.evaluations - len(uniforms)
            nets = [Genome(self.smallest)] if left > 0 and self._assessable(self.smallest) else []
            if nets and self.predictor is None:
                yield from self.genomes.measure("smallest float network", nets, "float")
                left -= len(nets)
            self._fix_scale(base, uniforms)
            self._fitted()
            self._logged("baselines", len(nets))
            yield from self._search(left)
        finalists = self.standing.survivors(self.largest, self.finalists)
        with self.genomes.bar("validate on held-out data", len(finalists)):
            yield from self.genomes.measure("held-out data", finalists, "survivor", "holdout")

    def _search(self, left: int) -> Rounds:
        """All rounds between the baselines and the held-out data."""
        exact = self.bits_only()[: max(0, left)]
        yield from self.genomes.measure("formats of the largest alone", exact, "formats alone")
        self._fitted()
        left -= len(exact)
        size = int(np.clip(-(-left // _ROUNDS), _SMALLEST, _LARGEST))
        number = 0
        while left > 0 and not self.ended:
            number += 1
            count = self._limited(min(size, left))
            if not count:
                break
            new = self._proposed(count if self.predictor else count // 2)
            self._fitted()
            if self.predictor is None:
                anchors = [self._anchor(choices) for choices in new]
                for origin in ("float", "anchor"):
                    asked = [each for each in anchors if (each.configuration == FLOAT) == (origin == "float")]
                    yield from self.genomes.measure(f"round {number}, new architectures", asked, origin)
                left -= len(anchors)
                count -= len(anchors)
            chosen = self._chosen(min(count, left))
            yield from self.genomes.measure(f"round {number}", chosen, "nested")
            left -= len(chosen)
            self._tell()
            self._logged(f"round {number}", len(new))
            if not new and not chosen:
                self.ended = "no architecture and no point of the merged front is left to measure"
        self.ended = self.ended or "all evaluations spent"
        if self.asked.constraints and not any(len(each.front) for each in self.assessed.values()):
            raise InfeasibleBudget(
                f"none of {len(self.assessed)} architectures meets the constraints: "
                f"{self.assessed[self.largest].refused}; raise the budget or offer coarser formats"
            )

    def bits_only(self) -> list[Genome]:
        """Under constraints: the exact allocation of formats on the largest architecture, if it can meet them."""
        if not self.asked.constraints:
            return []
        try:
            found = self.assessed[self.largest].problem.solve(self.asked.proxy, self.asked.constraints)
        except InfeasibleBudget:
            return []
        return [Genome(self.largest, found)]

    def merged(self) -> tuple[list[Assessed], Merged]:
        """The front of fronts as it is foretold now, and the architectures that its members count."""
        found = self._usable()
        return found, merge([self._front(each) for each in found])

    def _usable(self) -> list[Assessed]:
        """The architectures of which something is known and not everything fails."""
        if self.predictor is not None:
            return [each for choices, each in self.assessed.items() if not self.genomes.broken(choices)]
        tried = self.genomes.tried
        return [each for choices, each in self.assessed.items() if choices in tried]

    def _anchor(self, choices: Choices) -> Genome:
        """What is measured first of a new architecture: the cheapest formats that lose nothing to be seen, or float."""
        each = self.assessed[choices]
        assert self.law is not None  # the baselines were measured
        free = np.flatnonzero(self.law.losses(choices, each.scores) <= self.law.noise)
        return each.genome(int(free[np.argmin(each.costs[free, 0])])) if len(free) else Genome(choices)

    def _front(self, each: Assessed) -> FloatArray:
        """Objectives of an architecture's points: foretold quality, prices."""
        assert self.law is not None  # the baselines were measured
        return np.column_stack([self.law.qualities(each.choices, each.scores), each.costs])

    def _proposed(self, count: int) -> list[Choices]:
        """New architectures with a point that meets the constraints; others are asked for where some have none."""
        found: list[Choices] = []
        for _ in range(_TRIES):
            asked = self.proposer.ask(count - len(found)) if len(found) < count else []
            for choices in asked:
                if self._assessable(choices) and len(self.assessed[choices].front):
                    found.append(choices)
                if self.deadline is not None and time.perf_counter() > self.deadline:
                    return found
            if not asked:
                return found
            self._tell()
        return found

    def _assessable(self, choices: Choices) -> bool:
        """Assess an architecture; one that cannot be built, scored or priced is put down and left out."""
        if choices in self.assessed or choices in self.refused:
            return False
        try:
            self.assessed[choices] = assess(self.subnets, choices, self.asked)
        except BitfrontError as cause:
            self.refused[choices] = str(cause)
            self.genomes.progress.note(f"architecture {choices.digest} is left out: {cause}")
            return False
        return True

    def _chosen(self, count: int) -> list[Genome]:
        """The points of the merged front to measure next."""
        self._fitted()
        assert self.scale is not None  # the baselines were measured
        usable, front = self.merged()
        genomes = [usable[member].genome(row) for member, row in zip(front.member, front.row, strict=True)]
        free = np.array(
            [each not in self.genomes.origins and each not in self.genomes.failures for each in genomes], dtype=bool
        )
        best = count // 2 if self.asked.constraints else 0
        found = selected(front.values, free, self.standing.objectives(), self.scale, count, best)
        return [genomes[index] for index in found]

    def foretold(self, genome: Genome) -> float | None:
        """Quality of a genome as it is foretold now; ``None`` before the baselines are measured."""
        if self.law is None:
            return None
        return self.law.predict(genome.choices, self.assessed[genome.choices].score(genome.configuration))

    def _fitted(self) -> None:
        """The law, fitted to everything measured."""
        seen = self.standing.seen()
        known = len(self.assessed), len(seen)
        if self.law is not None and known == self._fitted_to:
            return
        self._fitted_to, means = known, None
        if self.predictor is not None:
            every = {each: float(self.predictor(each)) for each in self.assessed}
            means = {each: value for each, value in every.items() if np.isfinite(value)}
        self.law = QualityLaw.fit({each: found.numbers for each, found in self.assessed.items()}, seen, means)

    def _tell(self) -> None:
        self._fitted()
        found, front = self.merged()
        assert self.law is not None
        fronts = [self._front(each) for each in found]
        told = told_of(
            [each.choices for each in found], self.law.floats, fronts, front, by_quality=bool(self.asked.constraints)
        )
        empty = np.zeros((0, 1 + len(self.asked.prices)))
        usable = {each.choices for each in found}
        lost = [*self.refused, *(each for each in self.assessed if each not in usable)]
        self.proposer.tell([*told, *(Told(each, np.inf, empty, np.inf, 0.0) for each in lost)])

    def _fix_scale(self, base: Assessed, uniforms: Sequence[Genome]) -> None:
        few = [self.assessed[self.smallest].costs] if self.smallest in self.assessed else []
        costs = np.vstack([base.costs, *few, *(base.cost(each.configuration)[None] for each in uniforms)])
        qualities = [self.standing.quality(each) for each in uniforms if self.genomes.of(each) is not None]
        net, start = Genome(self.smallest), self.standing.quality(Genome(self.largest))
        if self.predictor is not None:
            reach = float(self.predictor(self.smallest))
        else:
            reach = self.standing.quality(net) if net in self.genomes.origins else start
        self.scale = Scale.of(start, qualities, reach if np.isfinite(reach) else start, costs)

    def _limited(self, count: int) -> int:
        """As many as fit before the deadline, judged by the evaluations seen so far; none: the time is up."""
        each = self.genomes.seconds()
        if self.deadline is None or each is None:
            return count
        left = self.deadline - time.perf_counter()
        fitting = min(count, max(0, int(left * self.workers / max(each, 1e-9))))
        if not fitting:
            self.ended = "the time is up"
        return fitting

    def _logged(self, name: str, architectures: int) -> None:
        assert self.scale is not None
        objectives = self.standing.objectives()
        line = {
            "round": name,
            "architectures": len(self.assessed),
            "proposed": architectures,
            "evaluations": len(self.genomes.measured()),
            "float_networks": sum(1 for each in self.genomes.origins if each.configuration == FLOAT),
            "hypervolume": self.scale.volume(objectives),
            "best_quality": float(objectives[:, 0].min()) if len(objectives) else None,
        }
        self.log.append(line)
        self.genomes.progress.status(
            f"{name}: {line['architectures']} architectures, {line['evaluations']} genomes measured, "
            f"hypervolume {line['hypervolume']:.4g}"
        )
