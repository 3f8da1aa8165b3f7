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
from .measurements import Measurements, Normal
from .mixture import Mixture
from .part_estimates import LEAST, whole_from_part
from .problem import FLOAT, Problem, Proposal
from .proposers import Evaluated, make
from .proxy_choice import ProxyChoice, choose_proxy
from .round_log import RoundLog
from .selection import Selection
from .stopping import StopRule
from .surrogate import Fitted, Surrogate
from .survivors import survivors

PROPOSERS = ("exact_front", "diverse", "gaps", "level_switch", "nsga2")
"""Who proposes unless a search says otherwise."""

_OPENING = 0.1  # of the evaluations left after the uniforms: the exact fronts of the scores, nothing learned yet
_ROUNDS = 12  # into which the rest is cut
_SMALLEST, _LARGEST = 4, 24  # evaluations of a round


@dataclass
class Loop:
    """Rounds of one search and what they found.

    Round 1 measures the float model and every uniform configuration; under constraints, round 2 the exact allocation on
    the scores of every proxy, whoever proposes later; then a spread of their exact fronts. Then, round by round: the
    surrogate is refitted to all that was measured, its table solved exactly, the bandit shares the round among the
    proposers, and of what they ask for that is measured from which most is expected. The last round measures the
    survivors on held-out data. What the store already knows is not asked for again. The size of the rounds depends on
    the number of evaluations alone, so a search with the same seed proposes the same candidates whoever measures them.

    Args:
        problem: scores, prices, objectives, constraints.
        measurements: what is known, and how more is found out.
        evaluations: candidates to measure, uniforms included.
        deadline: no further round of candidates starts after this ``time.perf_counter()``; ``None``: no limit.
        workers: how many candidates are evaluated at a time, to foresee how many fit before the deadline.
        auto: whether the first measurements choose, or weight, the proxies.
        proposers: who proposes; several are mixed by a bandit.
        stop: what ends the search early.
        finalists: most candidates measured on held-out data beside uniform configurations and exact allocations;
            ``None``: see ``survivors``.
        seed: of every random choice.

    Attributes:
        log: one line for each round.
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
    log: RoundLog = field(default_factory=RoundLog)
    ended: str = ""
    archive: Archive = field(init=False)
    mixture: Mixture | None = None
    surrogate: Surrogate | None = None

    def rounds(self) -> Rounds:
        """The search as a coroutine: yields work, is sent outcomes."""
        uniforms = [Proposal(found, "uniform") for found in dict.fromkeys(self.problem.space.uniforms().values())]
        measurements = self.measurements
        with measurements.bar("search", max(self.evaluations, len(uniforms))):
            yield from measurements.measure("float and uniform baselines", [Proposal(FLOAT, "float"), *uniforms])
            self.archive = Archive(self.problem, measurements.quality(FLOAT))
            self._archived(uniforms)
            self.archive.fix_scale()
            self._logged("uniform baselines", len(uniforms))
            yield from self._search(max(0, self.evaluations - len(uniforms)))
        finalists = survivors(self.problem, measurements, self.finalists, self._foretold())
        with measurements.bar("validate on held-out data", len(finalists) - 1):
            yield from measurements.measure("held-out data", finalists, "holdout")

    def _search(self, left: int) -> Rounds:
        """All rounds between the baselines and the held-out data."""
        if exact := self._exact(left):
            yield from self.measurements.measure("exact allocation on the scores", exact)
            self._archived(exact)
            self._logged("exact allocation on the scores", len(exact))
            left -= len(exact)
        opening = self._limited(max(1, round(_OPENING * left)) if left else 0)
        size = int(np.clip(-(-(left - opening) // _ROUNDS), _SMALLEST, _LARGEST))
        if opening and "exact_front" in self.proposers:
            first = make("exact_front", self.problem, self.seed)
            first.tell(self.archive.evaluated)
            asked = first.ask(opening)
            left -= len(asked)
            yield from self.measurements.measure("exact front of the scores", asked)
            self._archived(asked)
            self._logged("exact front of the scores", len(asked))
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
            asked, fitted = self._ask(self.measurements.contestants(count))
            if not asked:
                self.ended = self.ended or "every proposer has run out of new configurations"
                return
            if halving:
                keep = max(1, count // halving.factor)
                yield from self.measurements.halve(f"round {number}", asked, keep, self._expected(asked, fitted))
                left -= max(1, round(self.measurements.spent(asked)))
            else:
                yield from self.measurements.measure(f"round {number}", asked)
                left -= len(asked)
            self.mixture.tell(*self._archived(asked), asked)
            self._logged(f"round {number}", len(asked), fitted)

    def _ask(self, count: int) -> tuple[list[Proposal], Fitted | None]:
        """The next round: refit, solve, share, choose."""
        assert self.mixture is not None
        assert self.surrogate is not None
        if count <= 0 or not self.archive.evaluated:
            return [], None
        with threadpool_limits(1, user_api="blas"):  # small matrices: a second thread costs more than it brings
            fitted = self.surrogate.fit([*self.archive.evaluated, *self._estimates()])
            self.mixture.use(fitted.table, fitted.pairs)
            selection = Selection(fitted, self.archive, self.seed)
            taken = [*self.measurements.proposals, *self.measurements.failures]
            return self.mixture.ask(count, selection, taken), fitted

    def _exact(self, left: int) -> list[Proposal]:
        """The optimum of every proxy under the constraints, as far as it is not measured and the time allows."""
        found: dict[Configuration, Proposal] = {}
        for proxy in self.problem.sensitivities if self.problem.constraints and left else ():
            configuration = self.problem.solve(proxy, self.problem.constraints)
            if configuration not in self.measurements.proposals:
                found.setdefault(configuration, Proposal(configuration, f"budget:{proxy}"))
        return list(found.values())[: self._limited(min(left, len(found)))]

    def _foretold(self) -> dict[Configuration, float]:
        """Quality of everything measured as the surrogate foretells it from the others; empty without constraints."""
        evaluated = self.archive.evaluated
        if self.surrogate is None or not self.problem.constraints or not evaluated:
            return {}
        with threadpool_limits(1, user_api="blas"):
            fitted = self.surrogate.fit([*evaluated, *self._estimates()])
        values = fitted.latent.inverse(fitted.left_out[: len(evaluated)])
        return {found.configuration: float(value) for found, value in zip(evaluated, values, strict=True)}

    def _expected(self, proposals: Sequence[Proposal], fitted: Fitted | None) -> dict[Configuration, Normal]:
        """What the surrogate expects of proposals: mean and standard deviation of the quality."""
        if fitted is None:
            return {}
        found = fitted.predict(np.stack([self.problem.space.choice(each.configuration) for each in proposals]))
        told = zip(proposals, found.mean.tolist(), found.sd.tolist(), strict=True)
        return {each.configuration: (mean, deviation) for each, mean, deviation in told}

    def _estimates(self) -> list[Evaluated]:
        """What was screened out on part of the data, estimated on the whole: for the surrogate alone."""
        of = self.measurements
        references = [found.measurement for found in self.archive.evaluated]
        if len(references) < LEAST:
            return []
        found = []
        for configuration, origin in of.proposals.items():
            if configuration not in of.screened:
                continue
            part = of.partial[configuration.digest]
            value, error = whole_from_part(part, references)
            told = replace(part, value=value, low=value - 2 * error, high=value + 2 * error)
            found.append(self.archive.evaluation(configuration, origin, told, error))
        return found

    def report(self) -> dict[str, Any]:
        """How the search went, as plain data: rounds, shares of the proposers, the surrogate, why it ended."""
        return {
            "rounds": self.log.lines,
            "evaluations": len(self.archive.evaluated),
            "proposers": self.mixture.report() if self.mixture else [],
            "surrogate": self.surrogate.fitted.report() if self.surrogate and self.surrogate.fitted else None,
            "screened": len(self.measurements.screened),
            "ended": self.ended or "all evaluations spent",
        }

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

    def _logged(self, name: str, proposed: int, fitted: Fitted | None = None) -> None:
        self.log.add(name, proposed, self.archive, fitted, self.mixture)
        self.measurements.progress.status(f"{name}: {self.log.told()}")

    def _stopped(self) -> bool:
        self.ended = self.ended or self.stop.reason(self.archive, self.log.history()) or ""
        return bool(self.ended)

    def _limited(self, count: int) -> int:
        """As many as fit before the deadline, judged by the evaluations seen so far; none: the time is up."""
        each = self.measurements.seconds()
        if self.deadline is None or not count or each is None:
            return count
        left = self.deadline - time.perf_counter()
        fitting = min(count, max(0, int(left * self.workers / max(each, 1e-9))))
        if not fitting:
            self.ended = "the time is up"
        return fitting
