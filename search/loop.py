"""The loop of a search: propose from what is believed, measure, learn where the belief is wrong, propose again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ..space import Configuration
from .archive import Archive
from .executor import Rounds
from .measurements import Measurements
from .mixture import Mixture
from .pareto import non_dominated
from .problem import FLOAT, Problem, Proposal, spread
from .proposers import Evaluated, make
from .proxy_choice import ProxyChoice, choose_proxy
from .selection import Selection
from .stopping import StopRule
from .surrogate import Fitted, Surrogate, front_gap

PROPOSERS = ("exact_front", "diverse", "gaps", "level_switch", "nsga2")
"""Who proposes unless a search says otherwise."""

_OPENING = 0.25  # of the evaluations left after the uniforms: the exact fronts of the scores, nothing learned yet
_ROUNDS = 12  # into which the rest is cut
_SMALLEST, _LARGEST = 4, 24  # evaluations of a round


@dataclass
class Loop:
    """Rounds of one search and what they found.

    Round 1 measures the float model and every uniform configuration; round 2 a spread of the exact fronts of the scores
    and the optimum under the constraints. Then, round by round: the surrogate is refitted to all that was measured, its
    table solved exactly, the bandit shares the round among the proposers, and of what they ask for that is measured
    from which most is expected. The last round measures the survivors on held-out data. What the store already knows is
    not asked for again. The size of the rounds depends on the number of evaluations alone, so a search with the same
    seed proposes the same candidates whoever measures them.

    Args:
        problem: scores, prices, objectives, constraints.
        measurements: what is known, and how more is found out.
        evaluations: candidates to measure, uniforms included.
        deadline: no further round of candidates starts after this ``time.perf_counter()``; ``None``: no limit.
        workers: how many candidates are evaluated at a time, to foresee how many fit before the deadline.
        auto: whether the first measurements choose, or weight, the proxies.
        proposers: who proposes; several are mixed by a bandit.
        stop: what ends the search early.
        finalists: most candidates measured on held-out data beside the uniform ones; ``None``: the measured front.
        seed: of every random choice.

    Attributes:
        log: one line for each round, plain data.
        choice: what ``auto`` decided.
        ended: why the search ended.
    """

    problem: Problem
    measurements: Measurements
    evaluations: int
    deadline: float | None = None
    workers: int = 1
    auto: bool = False
    proposers: Sequence[str] = PROPOSERS
    stop: StopRule = field(default_factory=StopRule)
    finalists: int | None = None
    seed: int = 0
    choice: ProxyChoice | None = None
    log: list[dict[str, Any]] = field(default_factory=list)
    ended: str = ""
    archive: Archive = field(init=False)
    mixture: Mixture | None = None
    surrogate: Surrogate | None = None

    def rounds(self) -> Rounds:
        """The search as a coroutine: yields work, is sent outcomes."""
        uniforms = [Proposal(found, "uniform") for found in dict.fromkeys(self.problem.space.uniforms().values())]
        measure = self.measurements.measure
        yield from measure("float and uniform baselines", [Proposal(FLOAT, "float"), *uniforms])
        self.archive = Archive(self.problem, self.measurements.quality(FLOAT))
        self._archived(uniforms)
        self.archive.fix_scale()
        self._log("uniform baselines", len(uniforms))
        yield from self._search(max(0, self.evaluations - len(uniforms)))
        yield from measure("survivors on held-out data", self.survivors(), "holdout")

    def _search(self, left: int) -> Rounds:
        """All rounds between the baselines and the held-out data."""
        opening = self._limited(max(1, round(_OPENING * left)) if left else 0)
        size = int(np.clip(-(-(left - opening) // _ROUNDS), _SMALLEST, _LARGEST))
        if opening and "exact_front" in self.proposers:
            first = make("exact_front", self.problem, self.seed)
            first.tell(self.archive.evaluated)
            asked = first.ask(opening)
            left -= len(asked)
            yield from self.measurements.measure("exact front of the scores", asked)
            self._archived(asked)
            self._log("exact front of the scores", len(asked))
        if self.auto:
            self._choose()
        self.mixture = Mixture(self.proposers, self.problem, self.seed)
        self.surrogate = Surrogate(self.problem, self.archive.float_quality, self.seed)
        self.mixture.tell(self.archive.evaluated, [0.0] * len(self.archive.evaluated))
        number = 0
        while left > 0 and not self._stopped():
            number += 1
            count = self._limited(min(size, left))
            halving = self.measurements.halving
            asked, fitted = self._ask(halving.contestants(count) if halving and count else count)
            if not asked:
                self.ended = self.ended or "every proposer has run out of new configurations"
                return
            left -= count if halving else len(asked)
            if halving:
                yield from self.measurements.halve(f"round {number}", asked, max(1, count // halving.factor))
            else:
                yield from self.measurements.measure(f"round {number}", asked)
            self.mixture.tell(*self._archived(asked))
            self._log(f"round {number}", len(asked), fitted)

    def _ask(self, count: int) -> tuple[list[Proposal], Fitted | None]:
        """The next round: refit, solve, share, choose."""
        assert self.mixture is not None
        assert self.surrogate is not None
        if count <= 0 or not self.archive.evaluated:
            return [], None
        with threadpool_limits(1, user_api="blas"):  # small matrices: a second thread costs more than it brings
            fitted = self.surrogate.fit(self.archive.evaluated)
            self.mixture.use(fitted.table, fitted.pairs)
            selection = Selection(fitted, self.archive, self.seed)
            taken = [*self.measurements.proposals, *self.measurements.failures]
            return self.mixture.ask(count, selection, taken), fitted

    def survivors(self) -> list[Proposal]:
        """The float model, the uniform configurations, and what is not dominated on the validation data.

        With ``finalists`` only so many beside the uniform ones: the best in quality where there are constraints, else
        spread over the front.
        """
        of, problem = self.measurements, self.problem
        measured, uniforms = of.measured(), set(problem.space.uniforms().values())
        keep = self.pareto(measured) if measured else np.zeros(0, dtype=bool)
        front = [found for found, on_front in zip(measured, keep, strict=True) if on_front and found not in uniforms]
        best = sorted((found for found in measured if self._meets(found)), key=of.quality)
        kept = list(dict.fromkeys([*best[:2], *front]))
        if self.finalists is not None and problem.constraints:
            kept = sorted((found for found in kept if self._meets(found)), key=of.quality)[: self.finalists]
        elif self.finalists is not None and front:
            costs = problem.totals(
                np.stack([problem.space.choice(each) for each in front]), problem.price_objectives[0]
            )
            kept = [front[index] for index in spread(costs, self.finalists, np.zeros(len(front), dtype=bool))]
        baselines = [found for found in measured if found in uniforms]
        return [Proposal(found, "survivor") for found in dict.fromkeys([FLOAT, *baselines, *kept])]

    def pareto(self, measured: Sequence[Configuration]) -> np.ndarray:
        """Which measured configurations are not dominated in the objectives: boolean array."""
        choices = np.stack([self.problem.space.choice(found) for found in measured])
        prices = [self.problem.totals(choices, name) for name in self.problem.price_objectives]
        return non_dominated(np.column_stack([[self.measurements.quality(found) for found in measured], *prices]))

    def report(self) -> dict[str, Any]:
        """How the search went, as plain data: rounds, shares of the proposers, the surrogate, why it ended."""
        return {
            "rounds": self.log,
            "proposers": self.mixture.report() if self.mixture else [],
            "surrogate": self.surrogate.fitted.report() if self.surrogate and self.surrogate.fitted else None,
            "screened": len(self.measurements.screened),
            "ended": self.ended or "all evaluations spent",
        }

    def _meets(self, configuration: Configuration) -> bool:
        return bool(self.problem.meets(self.problem.space.choice(configuration)[None])[0])

    def _choose(self) -> None:
        """Put the proxy, or the weighted sum, that the measurements speak for in front of the others."""
        measured = self.measurements.measured()
        self.choice, ranked = choose_proxy(
            self.problem.space,
            self.problem.sensitivities,
            measured,
            [self.measurements.quality(found) for found in measured],
        )
        self.problem = replace(self.problem, sensitivities=ranked)
        self.measurements.progress.note(f"proxies: {self.choice.reason}")

    def _archived(self, proposals: Sequence[Proposal]) -> tuple[list[Evaluated], list[float]]:
        """What of a round was measured, taken into the archive, and what each gained."""
        found: list[tuple[Evaluated, float]] = []
        for proposal in dict.fromkeys(proposals):
            measurement = self.measurements.of(proposal.configuration)
            if measurement is not None and proposal.configuration != FLOAT:
                found.append(self.archive.add(proposal.configuration, proposal.origin, measurement))
        return [each for each, _ in found], [gain for _, gain in found]

    def _log(self, name: str, proposed: int, fitted: Fitted | None = None) -> None:
        """One line for a round: what it measured, the front after it, and what was predicted before it."""
        best, before = self.archive.best(), self.log[-1]["evaluations"] if self.log else 0
        self.log.append(
            {
                "round": name,
                "proposed": proposed,
                "measured": len(self.archive.evaluated) - before,
                "evaluations": len(self.archive.evaluated),
                "hypervolume": self.archive.hypervolume(),
                "best": best.quality if best else None,
                "gap": self._gap(fitted) if fitted else None,
                "model": fitted.kind if fitted else None,
            }
        )

    def _gap(self, fitted: Fitted) -> float | None:
        """Share of the predicted front's hypervolume that is not measured yet, in the first price objective.

        The predicted front is the exact one of the refitted table, thinned evenly.
        """
        assert self.mixture is not None
        front = self.mixture.predicted_front()
        known = [found for found in self.archive.evaluated if found.feasible]
        if front is None or not len(front) or not known:
            return None
        metric = self.problem.price_objectives[0]
        gap = front_gap(
            fitted.latent,
            fitted.predict(front).mean,
            self.problem.totals(front, metric)[:, None],
            np.array([found.quality for found in known]),
            np.array([found.costs[:1] for found in known]),
        )
        return gap.relative

    def _stopped(self) -> bool:
        inf = float("inf")
        history = [
            (line["evaluations"], line["hypervolume"], inf if line["best"] is None else line["best"])
            for line in self.log
        ]
        self.ended = self.ended or self.stop.reason(self.archive, history) or ""
        if self.ended:
            self.measurements.progress.note(f"search: {self.ended}")
        return bool(self.ended)

    def _limited(self, count: int) -> int:
        """As many as fit before the deadline, judged by the evaluations seen so far."""
        each = self.measurements.seconds()
        if self.deadline is None or not count or each is None:
            return count
        fitting = max(0, int((self.deadline - time.perf_counter()) * self.workers / max(each, 1e-9)))
        if fitting < count:
            self.ended = "the time is up"
            self.measurements.progress.note(f"time is short: {fitting} of {count} further candidates are measured")
        return min(count, fitting)
