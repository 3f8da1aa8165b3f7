"""The loop of a search: propose from what is believed, measure, learn where the belief is wrong, propose again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ..measurement import Measurement
from ..space import Configuration
from ..task import Split
from .archive import Archive
from .executor import Outcome, Rounds, Work
from .mixture import Mixture
from .pareto import non_dominated
from .problem import Problem, Proposal
from .progress import Advance, Progress
from .proposers import Evaluated, make
from .proxy_choice import ProxyChoice, choose_proxy
from .selection import Selection
from .stopping import StopRule
from .surrogate import Surrogate

FLOAT = Configuration(())
PROPOSERS = ("exact_front", "diverse", "gaps", "level_switch", "nsga2")
"""Who proposes unless a search says otherwise."""

_OPENING = (
    0.25  # of the evaluations left after the uniforms: the exact fronts of the scores, before anything is learned
)
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
        evaluations: candidates to measure, uniforms included.
        deadline: no further round of candidates starts after this ``time.perf_counter()``; ``None``: no limit.
        workers: how many candidates are evaluated at a time, to foresee how many fit before the deadline.
        known: measurements of earlier runs by (configuration digest, split).
        progress: who watches.
        auto: whether the first measurements choose, or weight, the proxies.
        proposers: who proposes; several are mixed by a bandit.
        stop: what ends the search early.
        seed: of every random choice.
    """

    problem: Problem
    evaluations: int
    deadline: float | None
    workers: int
    known: dict[tuple[str, Split], Measurement]
    progress: Progress
    auto: bool = False
    proposers: Sequence[str] = PROPOSERS
    stop: StopRule = field(default_factory=StopRule)
    seed: int = 0
    choice: ProxyChoice | None = None
    proposals: dict[Configuration, str] = field(default_factory=dict)
    failures: dict[Configuration, str] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    ended: str = ""
    advance: Advance = field(default=lambda steps: None)
    archive: Archive = field(init=False)
    mixture: Mixture | None = None
    surrogate: Surrogate | None = None

    def rounds(self) -> Rounds:
        """The search as a coroutine: yields work, is sent outcomes."""
        uniforms = [Proposal(found, "uniform") for found in self.problem.space.uniforms().values()]
        yield from self._measure("float and uniform baselines", [Proposal(FLOAT, "float"), *uniforms])
        self.archive = Archive(self.problem, self._quality(FLOAT))
        self._archived([each for each in uniforms if each.configuration != FLOAT])
        self.archive.fix_scale()
        self._record(len(self.archive.evaluated), "uniform baselines")
        yield from self._search(max(0, self.evaluations - len({each.configuration for each in uniforms})))
        yield from self._measure("survivors on held-out data", self.survivors(), "holdout")

    def _search(self, left: int) -> Rounds:
        """All rounds between the baselines and the held-out data."""
        opening = self._limited(max(1, round(_OPENING * left)) if left else 0)
        size = int(np.clip(-(-(left - opening) // _ROUNDS), _SMALLEST, _LARGEST))
        if opening and "exact_front" in self.proposers:
            asked = make("exact_front", self.problem, self.seed).ask(opening)
            left -= len(asked)
            yield from self._measure("exact front of the scores", asked)
            self._learned(asked, "exact front of the scores")
        if self.auto:
            self._choose()
        self.mixture = Mixture(self.proposers, self.problem, self.seed)
        self.surrogate = Surrogate(self.problem, self.archive.float_quality, self.seed)
        self.mixture.tell(self.archive.evaluated, [0.0] * len(self.archive.evaluated))
        number = 0
        while left > 0 and not self._stopped():
            number += 1
            count = self._limited(min(size, left))
            asked = self._ask(count)
            if not asked:
                self.ended = self.ended or "every proposer has run out of new configurations"
                return
            left -= len(asked)
            yield from self._measure(f"round {number}", asked)
            fresh, gains = self._learned(asked, f"round {number}")
            self.mixture.tell(fresh, gains)

    def _ask(self, count: int) -> list[Proposal]:
        """The next round: refit, solve, share, choose."""
        assert self.mixture is not None
        assert self.surrogate is not None
        if count <= 0 or not self.archive.evaluated:
            return []
        with threadpool_limits(1, user_api="blas"):  # small matrices: a second thread costs more than it brings
            fitted = self.surrogate.fit(self.archive.evaluated)
            self.mixture.use(fitted.table, fitted.pairs)
            selection = Selection(fitted, self.archive, self.seed)
            return self.mixture.ask(count, selection, [*self.proposals, *self.failures])

    def measurement(self, configuration: Configuration, split: Split = "validation") -> Measurement | None:
        """What is known of a configuration."""
        return self.known.get((configuration.digest, split))

    def measured(self) -> list[Configuration]:
        """The candidates of this search that have a measurement, in the order of proposal."""
        return [found for found in self.proposals if found != FLOAT and self.measurement(found)]

    def survivors(self) -> list[Proposal]:
        """The float model, the uniform configurations, and what is not dominated on the validation data."""
        measured = self.measured()
        keep = self.pareto(measured) if measured else np.zeros(0, dtype=bool)
        kept = [found for found, on_front in zip(measured, keep, strict=True) if on_front or self._is_uniform(found)]
        best = [found for found in measured if self.meets(found)]
        best.sort(key=self._quality)
        return [Proposal(found, "survivor") for found in dict.fromkeys([FLOAT, *kept, *best[:2]])]

    def meets(self, configuration: Configuration) -> bool:
        """Whether a configuration meets the constraints."""
        return bool(self.problem.meets(self.problem.space.choice(configuration)[None])[0])

    def pareto(self, measured: Sequence[Configuration]) -> np.ndarray:
        """Which measured configurations are not dominated in the objectives: boolean array."""
        names = self.problem.price_objectives
        choices = np.stack([self.problem.space.choice(found) for found in measured])
        prices = [self.problem.totals(choices, name) for name in names]
        return non_dominated(np.column_stack([[self._quality(found) for found in measured], *prices]))

    def report(self) -> dict[str, Any]:
        """How the search went, as plain data: rounds, shares of the proposers, the surrogate, why it ended."""
        return {
            "rounds": self.log,
            "proposers": self.mixture.report() if self.mixture else [],
            "surrogate": self.surrogate.fitted.report() if self.surrogate and self.surrogate.fitted else None,
            "ended": self.ended or "all evaluations spent",
        }

    def _choose(self) -> None:
        """Put the proxy, or the weighted sum, that the measurements speak for in front of the others."""
        measured = self.measured()
        self.choice, ranked = choose_proxy(
            self.problem.space, self.problem.sensitivities, measured, [self._quality(found) for found in measured]
        )
        self.problem = replace(self.problem, sensitivities=ranked)
        self.progress.note(f"proxies: {self.choice.reason}")

    def _measure(self, name: str, proposals: Sequence[Proposal], split: Split = "validation") -> Rounds:
        """Ask for what is not known, with a progress bar of its own."""
        if split == "validation":
            for proposal in proposals:
                self.proposals.setdefault(proposal.configuration, proposal.origin)
        missing = [
            Work(proposal.configuration, split)
            for proposal in proposals
            if self.measurement(proposal.configuration, split) is None and proposal.configuration not in self.failures
        ]
        if len(missing) < len(proposals):
            self.progress.note(f"{name}: {len(proposals) - len(missing)} of {len(proposals)} already in the store")
        if not missing:
            return
        with self.progress.stage(f"evaluate {name}", len(missing)) as self.advance:
            outcomes = yield missing
        for outcome in outcomes:
            self._take(outcome)

    def _take(self, outcome: Outcome) -> None:
        work = outcome.work
        if outcome.measurement is None:
            self.failures[work.configuration] = outcome.failure
        else:
            self.known[work.configuration.digest, work.split] = outcome.measurement

    def _archived(self, proposals: Sequence[Proposal]) -> tuple[list[Evaluated], list[float]]:
        """What of a round was measured, taken into the archive, and what each gained."""
        found: list[tuple[Evaluated, float]] = []
        for proposal in dict.fromkeys(proposals):
            measurement = self.measurement(proposal.configuration)
            if measurement is not None:
                found.append(self.archive.add(proposal.configuration, proposal.origin, measurement))
        return [each for each, _ in found], [gain for _, gain in found]

    def _learned(self, proposals: Sequence[Proposal], name: str) -> tuple[list[Evaluated], list[float]]:
        fresh, gains = self._archived(proposals)
        self._record(len(fresh), name)
        return fresh, gains

    def _record(self, measured: int, name: str) -> None:
        """One line of the log."""
        best = self.archive.best()
        self.log.append(
            {
                "round": name,
                "measured": measured,
                "proposed": len(self.proposals),
                "evaluations": len(self.archive.evaluated),
                "hypervolume": self.archive.hypervolume(),
                "best": best.quality if best else None,
            }
        )

    def _stopped(self) -> bool:
        inf = float("inf")
        history = [
            (line["evaluations"], line["hypervolume"], inf if line["best"] is None else line["best"])
            for line in self.log
        ]
        self.ended = self.stop.reason(self.archive, history) or ""
        if self.ended:
            self.progress.note(f"search: {self.ended}")
        return bool(self.ended)

    def _limited(self, count: int) -> int:
        """As many as fit before the deadline, judged by the evaluations seen so far."""
        if self.deadline is None or not count:
            return count
        seconds = [found.seconds for (_, split), found in self.known.items() if split == "validation"]
        each = float(np.median(seconds)) / self.workers if seconds else 0.0
        fitting = max(0, int((self.deadline - time.perf_counter()) / max(each, 1e-9)))
        if fitting < count:
            self.ended = "the time is up"
            self.progress.note(f"time is short: {fitting} of {count} further candidates are measured")
        return min(count, fitting)

    def _quality(self, configuration: Configuration) -> float:
        found = self.measurement(configuration)
        return found.value if found else float("inf")

    def _is_uniform(self, configuration: Configuration) -> bool:
        return self.proposals.get(configuration) == "uniform"


def numbered(configurations: Sequence[Configuration], uniforms: dict[str, Configuration]) -> Iterator[str]:
    """Short ids: ``uniform-w4`` for uniform configurations, ``p01``, ``p02``, … for the others in their order."""
    names = {configuration: f"uniform-{name}" for name, configuration in reversed(uniforms.items())}
    width = len(str(len(configurations)))
    count = 0
    for configuration in configurations:
        if configuration in names:
            yield names[configuration]
        else:
            count += 1
            yield f"p{count:0{width}d}"
