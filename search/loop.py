"""The loop of a search: which configurations are measured, round by round."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from ..measurement import Measurement
from ..space import Configuration
from ..task import Split
from .executor import Outcome, Rounds, Work
from .pareto import non_dominated
from .problem import Problem, Proposal, interleave, spread
from .progress import Advance, Progress
from .proxy_choice import ProxyChoice, choose_proxy
from .surrogate import spearman

FLOAT = Configuration(())
_FIRST_SHARE = 0.6  # of the evaluations left after the uniforms; the rest goes where the measured front has gaps


@dataclass
class Loop:
    """Rounds of one search and what they found.

    Round 1 measures the float model and every uniform configuration; round 2 a spread of the exact fronts and the
    optimum under the constraints; round 3 fills the largest gaps of the measured front; the last round measures the
    survivors on held-out data. What the store already knows is not asked for again.

    Args:
        problem: scores, prices, objectives, constraints.
        evaluations: candidates to measure, uniforms included.
        deadline: no further round of candidates starts after this ``time.perf_counter()``; ``None``: no limit.
        workers: how many candidates are evaluated at a time, to foresee how many fit before the deadline.
        known: measurements of earlier runs by (configuration digest, split).
        progress: who watches.
        auto: whether the measurements of the first two rounds choose, or weight, the proxies for the third.
    """

    problem: Problem
    evaluations: int
    deadline: float | None
    workers: int
    known: dict[tuple[str, Split], Measurement]
    progress: Progress
    auto: bool = False
    choice: ProxyChoice | None = None
    proposals: dict[Configuration, str] = field(default_factory=dict)
    failures: dict[Configuration, str] = field(default_factory=dict)
    advance: Advance = field(default=lambda steps: None)

    def rounds(self) -> Rounds:
        """The search as a coroutine: yields work, is sent outcomes."""
        uniforms = [Proposal(found, "uniform") for found in self.problem.space.uniforms().values()]
        yield from self._measure("float and uniform baselines", [Proposal(FLOAT, "float"), *uniforms])
        left = max(0, self.evaluations - len(set(self.problem.space.uniforms().values())))
        first = max(1, round(_FIRST_SHARE * left)) if left else 0
        yield from self._measure("exact front", self._limited(self.front_proposals(first)))
        if self.auto:
            self._choose()
        yield from self._measure("gaps of the front", self._limited(self.gap_proposals(left - first)))
        yield from self._measure("survivors on held-out data", self.survivors(), "holdout")

    def measurement(self, configuration: Configuration, split: Split = "validation") -> Measurement | None:
        """What is known of a configuration."""
        return self.known.get((configuration.digest, split))

    def measured(self) -> list[Configuration]:
        """The candidates of this search that have a measurement, in the order of proposal."""
        return [found for found in self.proposals if found != FLOAT and self.measurement(found)]

    def front_proposals(self, count: int) -> list[Proposal]:
        """The optimum under the constraints, then points spread over the exact front of every proxy and price."""
        lists: list[list[Proposal]] = []
        for proxy in self.problem.sensitivities:
            if self.problem.constraints:
                lists.append([Proposal(self.problem.solve(proxy, self.problem.constraints), f"budget:{proxy}")])
            for metric in self.problem.price_objectives:
                front = self.problem.front(proxy, metric)
                if len(front):
                    picks = spread(self.problem.totals(front, metric), count, self._taken(front))
                    lists.append(self._named(front[picks], f"exact_front:{proxy}:{metric}"))
        fresh = (proposal for proposal in interleave(*lists) if proposal.configuration not in self.proposals)
        return list(islice(fresh, count))

    def gap_proposals(self, count: int) -> list[Proposal]:
        """Points of the exact fronts between measured neighbours that leave the largest empty rectangles.

        Only the fronts of the proxy that has ranked the measurements best so far are used.
        """
        proxy = self.trusted()
        lists = []
        for metric in self.problem.price_objectives:
            front = self.problem.front(proxy, metric)
            front = front[~self._taken(front)]
            if len(front):
                picks = self._by_gap(self.problem.totals(front, metric), metric)[:count]
                lists.append(self._named(front[picks], f"gap:{proxy}:{metric}"))
        return list(islice(interleave(*lists), count))

    def trusted(self) -> str:
        """The proxy whose additive scores have the highest rank correlation with what was measured; ties: the first.

        With ``auto`` the one that was chosen.
        """
        if self.choice is not None:
            return self.choice.proxy
        measured = self.measured()
        quality = np.array([self._quality(found) for found in measured])

        def trust(proxy: str) -> float:
            scores = self.problem.sensitivities[proxy]
            return spearman(np.array([scores.of(found) for found in measured]), quality) or 0.0

        return max(self.problem.sensitivities, key=trust)

    def _choose(self) -> None:
        """Put the proxy, or the weighted sum, that the measurements speak for in front of the others."""
        measured = self.measured()
        self.choice, ranked = choose_proxy(
            self.problem.space, self.problem.sensitivities, measured, [self._quality(found) for found in measured]
        )
        self.problem = replace(self.problem, sensitivities=ranked)
        self.progress.note(f"proxies: {self.choice.reason}")

    def survivors(self) -> list[Proposal]:
        """The float model, the uniform configurations, and what is not dominated on the validation data."""
        measured = self.measured()
        keep = non_dominated(self._table(measured)) if measured else np.zeros(0, dtype=bool)
        kept = [found for found, on_front in zip(measured, keep, strict=True) if on_front or self._is_uniform(found)]
        best = [found for found in measured if self.meets(found)]
        best.sort(key=self._quality)
        return [Proposal(found, "survivor") for found in dict.fromkeys([FLOAT, *kept, *best[:2]])]

    def meets(self, configuration: Configuration) -> bool:
        """Whether a configuration meets the constraints."""
        return bool(self.problem.meets(self.problem.space.choice(configuration)[None])[0])

    def pareto(self, measured: Sequence[Configuration]) -> np.ndarray:
        """Which measured configurations are not dominated in the objectives: boolean array."""
        return non_dominated(self._table(measured))

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

    def _limited(self, proposals: list[Proposal]) -> list[Proposal]:
        """As many as fit before the deadline, judged by the evaluations seen so far."""
        if self.deadline is None:
            return proposals
        seconds = [self.known[key].seconds for key in self.known if key[1] == "validation"]
        if not seconds:
            return proposals
        each = float(np.median(seconds)) / self.workers
        fitting = max(0, int((self.deadline - time.perf_counter()) / max(each, 1e-9)))
        if fitting < len(proposals):
            self.progress.note(f"time is short: {fitting} of {len(proposals)} further candidates are measured")
        return proposals[:fitting]

    def _taken(self, front: np.ndarray) -> np.ndarray:
        """Which points of a front were proposed before: boolean array [points]."""
        space = self.problem.space
        before = {space.choice(found).tobytes() for found in self.proposals if found != FLOAT}
        return np.array([row.astype(np.int64).tobytes() in before for row in front], dtype=bool)

    def _named(self, choices: np.ndarray, origin: str) -> list[Proposal]:
        return [Proposal(self.problem.space.configuration(choice), origin) for choice in choices]

    def _by_gap(self, costs: np.ndarray, metric: str) -> list[int]:
        """Indices into a front's costs [points], those in the largest gaps of what was measured first.

        A gap lies between two neighbours on the measured front; its size is the rectangle (price step) x (step of
        log quality) in which an undiscovered point could lie. The front points nearest to its middle and its quarters
        are proposed.
        """
        measured = [found for found in self.measured() if self._quality(found) > 0]
        if len(measured) < 2:
            return list(range(len(costs)))
        points = np.column_stack([self._costs(measured, metric), [np.log(self._quality(found)) for found in measured]])
        points = np.unique(points[non_dominated(points)], axis=0)
        steps = np.abs(np.diff(points, axis=0)).prod(axis=1)
        order: list[int] = []
        for share in (0.5, 0.25, 0.75):
            for gap in np.argsort(-steps):
                left, right = points[gap, 0], points[gap + 1, 0]
                inside = np.flatnonzero((costs > left) & (costs < right))
                if len(inside):
                    order.append(int(inside[np.argmin(np.abs(costs[inside] - left - share * (right - left)))]))
        return list(dict.fromkeys(order))

    def _costs(self, configurations: Sequence[Configuration], metric: str) -> np.ndarray:
        return np.array([self.problem.prices.of(found)[metric].value for found in configurations])

    def _table(self, configurations: Sequence[Configuration]) -> np.ndarray:
        """Measured quality and price objectives: array [configurations, objectives]."""
        rows = []
        for found in configurations:
            prices = self.problem.prices.of(found)
            rows.append([self._quality(found), *(prices[name].value for name in self.problem.price_objectives)])
        return np.array(rows).reshape(len(rows), 1 + len(self.problem.price_objectives))

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
