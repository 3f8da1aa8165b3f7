"""The additive problem of a search: scores, prices, objectives and constraints of one space."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from ..errors import InfeasibleBudget, InvalidInput
from ..hw_models import Prices
from ..proxies import Sensitivity
from ..space import Configuration, SearchSpace
from .allocation import BudgetConflict, allocate, exact_front
from .allocation.solve import Method

_TIGHTENINGS = 6  # bisections of a budget whose price is no sum over sites
_LEVELS = 16  # budgets per price when other constraints bind, or pairs interact
_SAMPLED_GAP = 1e-3  # of the loss at those budgets: a front to draw candidates from, five times faster than a proof


FLOAT = Configuration(())
"""The float model among the candidates: no site has a format."""


@dataclass(frozen=True)
class Proposal:
    """A configuration worth measuring.

    Attributes:
        configuration: what.
        origin: who proposed it: ``uniform``, ``exact_front:<proxy>:<price>``, ``budget:<proxy>``, ``gap:<proxy>``.
    """

    configuration: Configuration
    origin: str


@dataclass(frozen=True)
class Problem:
    """Scores and prices of a space, and what is asked of them.

    Attributes:
        space: sites, formats, ties.
        sensitivities: by proxy name; the first is the one that budgets are solved with.
        prices: of every objective and constraint.
        objectives: ``quality`` and prices.
        constraints: price -> largest value allowed.
    """

    space: SearchSpace
    sensitivities: dict[str, Sensitivity]
    prices: Prices
    objectives: tuple[str, ...]
    constraints: dict[str, float]
    _fronts: dict[tuple[str, str], np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @property
    def price_objectives(self) -> list[str]:
        """The objectives that are prices."""
        return [name for name in self.objectives if name != "quality"]

    def loss(self, proxy: str) -> np.ndarray:
        """Scores [sites, formats], 0 where a format is not offered."""
        return np.where(self.space.allowed, self.sensitivities[proxy].values, 0.0)

    def pairs(self, proxy: str) -> dict[tuple[int, int], np.ndarray]:
        """Interactions of two sites [formats, formats], 0 where a format is not offered; empty where there are none."""
        allowed = self.space.allowed
        return {
            (one, other): np.where(allowed[one][:, None] & allowed[other], table, 0.0)
            for (one, other), table in (self.sensitivities[proxy].pairs or {}).items()
        }

    def cost(self, metric: str) -> np.ndarray:
        """Prices [sites, formats], 0 where a format is not offered."""
        return np.where(self.space.allowed, self.prices[metric].values, 0.0)

    def solve(self, proxy: str, budgets: Mapping[str, float]) -> Configuration:
        """The exact optimum of the scores within budgets (totals, the constant part included).

        Interactions of pairs count where the proxy gives them. Where a total is no sum over sites (a latency in which
        neighbours matter to each other) the sum stands in for it; if the optimum's total exceeds its budget, the best
        configuration found that holds it is returned instead (``_holding``), which is not proven optimal.

        Raises:
            InfeasibleBudget: no configuration meets them.
        """
        limits = {metric: limit - self.prices[metric].base for metric, limit in budgets.items()}
        try:
            choice = self._allocated(proxy, limits)
        except BudgetConflict as cause:
            raise InfeasibleBudget(self._refusal(cause, budgets)) from None
        if self._exceeded(choice, budgets):
            choice = self._holding(proxy, limits, budgets, choice)
        return self.space.configuration(choice)

    def _exceeded(self, choice: np.ndarray, budgets: Mapping[str, float]) -> list[str]:
        """The budgets that the totals of a choice [sites] exceed."""
        return [
            name for name, limit in budgets.items() if self.totals(choice[None], name)[0] > limit + 1e-9 * abs(limit)
        ]

    def _holding(
        self, proxy: str, limits: dict[str, float], budgets: Mapping[str, float], optimum: np.ndarray
    ) -> np.ndarray:
        """The least score among configurations whose totals hold: uniform ones, and optima of tighter sums.

        The sums' limits are bisected between their least values and the budgets. If nothing holds, the optimum of the
        sums is returned; who asked checks it with ``totals``.
        """
        least = {name: self._least(name) for name in self._exceeded(optimum, budgets)}
        uniform = [self.space.choice(found) for found in self.space.uniforms().values()]
        held = [choice for choice in uniform if not self._exceeded(choice, budgets)]
        low, high = 0.0, 1.0
        for _ in range(_TIGHTENINGS):
            share = (low + high) / 2
            tighter = {name: start + share * (limits[name] - start) for name, start in least.items()}
            try:
                choice = self._allocated(proxy, limits | tighter)
            except BudgetConflict:
                low = share
                continue
            if self._exceeded(choice, budgets):
                high = share
            else:
                low = share
                held.append(choice)
        return min(held, key=lambda choice: self._score(proxy, choice), default=optimum)

    def _least(self, metric: str) -> float:
        """The least sum over sites of a price."""
        cheapest = self.space.choice(self._cheapest(metric, {}))
        return float(self.cost(metric)[np.arange(len(cheapest)), cheapest].sum())

    def _score(self, proxy: str, choice: np.ndarray) -> float:
        """Predicted loss of a choice [sites], interactions included."""
        pairs = sum(table[choice[one], choice[other]] for (one, other), table in self.pairs(proxy).items())
        return float(self.loss(proxy)[np.arange(len(choice)), choice].sum() + pairs)

    def _allocated(
        self, proxy: str, limits: Mapping[str, float], gap: float = 0.0, method: Method = "auto"
    ) -> np.ndarray:
        """The optimum of the additive problem within limits on the sums over sites: int array [sites]."""
        return allocate(
            self.loss(proxy),
            {metric: self.cost(metric) for metric in limits},
            dict(limits),
            ties=self.space.tie_indices,
            allowed=self.space.allowed,
            pair_loss=self.pairs(proxy),
            gap=gap,
            method=method,
        ).choice

    def _refusal(self, cause: BudgetConflict, budgets: Mapping[str, float]) -> str:
        """Why budgets cannot be met, in totals as users give them (the allocator sees them without the base)."""
        told = [
            f"{name} {budgets[name]:.6g} asked, smallest reachable alone {least + self.prices[name].base:.6g}"
            for name, least in cause.reachable.items()
        ]
        which = " with ".join(cause.conflict)
        return f"no configuration meets {which}: {'; '.join(told)}; raise the budget or offer coarser formats"

    def totals(self, choices: np.ndarray, metric: str) -> np.ndarray:
        """Price of many choices at once: int array [points, sites] -> float array [points]."""
        return self.prices[metric].totals(choices)

    def meets(self, choices: np.ndarray) -> np.ndarray:
        """Which choices [points, sites] meet all constraints: boolean array [points]."""
        fits = np.ones(len(choices), dtype=bool)
        for metric, limit in self.constraints.items():
            fits &= self.totals(choices, metric) <= limit * (1 + 1e-9)
        return fits

    def front(self, proxy: str, metric: str) -> np.ndarray:
        """The exact front of score against one price that meets the constraints: int array [points, sites].

        With constraints on other prices, or interactions of pairs, the front is sampled at evenly spaced budgets of the
        sums over sites, each solved to within 0.1 % of the loss; what does not meet the constraints in total is left
        out. Each is solved once.
        """
        if (proxy, metric) not in self._fronts:
            self._fronts[proxy, metric] = self._solved_front(proxy, metric)
        return self._fronts[proxy, metric]

    def _solved_front(self, proxy: str, metric: str) -> np.ndarray:
        others = {name: limit for name, limit in self.constraints.items() if name != metric}
        if not others and not self.pairs(proxy):
            table = exact_front(
                self.loss(proxy), self.cost(metric), ties=self.space.tie_indices, allowed=self.space.allowed
            )
            found = np.stack(list(table["choice"]))
            kept: np.ndarray = found[self.meets(found)]
            return kept
        dearest = self.space.choice(self.solve(proxy, others))
        cheapest = self.space.choice(self._cheapest(metric, others))
        low, high = self.totals(np.stack([cheapest, dearest]), metric)
        high = max(low, min(high, self.constraints.get(metric, np.inf)))
        levels = np.linspace(low, high, _LEVELS)
        solved = [dearest, cheapest]
        for level in levels:
            budgets = {**others, metric: float(level) * (1 + 1e-12)}
            limits = {name: limit - self.prices[name].base for name, limit in budgets.items()}
            with suppress(BudgetConflict):  # the total of a choice may lie below its sum over sites
                solved.append(self._allocated(proxy, limits, gap=_SAMPLED_GAP, method="highs"))
        points: np.ndarray = np.unique(np.stack(solved), axis=0)
        points = points[self.meets(points)]
        ascending: np.ndarray = points[np.argsort(self.totals(points, metric), kind="stable")]
        return ascending

    def _cheapest(self, metric: str, others: Mapping[str, float]) -> Configuration:
        """The configuration of least price within the other constraints."""
        found = allocate(
            self.cost(metric),
            {name: self.cost(name) for name in others},
            {name: limit - self.prices[name].base for name, limit in others.items()},
            ties=self.space.tie_indices,
            allowed=self.space.allowed,
        )
        return self.space.configuration(found.choice)


def exact_allocations(problem: Problem, limits: Mapping[str, float]) -> set[Configuration]:
    """The exact optimum of every proxy's scores within limits; empty where nothing meets them, or there are none."""
    if not limits:
        return set()
    try:
        return {problem.solve(proxy, limits) for proxy in problem.sensitivities}
    except InfeasibleBudget:
        return set()


def check_names(objectives: Sequence[str], constraints: Mapping[str, float], known: Sequence[str]) -> None:
    """Refuse objectives and constraints that are no prices.

    Raises:
        InvalidInput: the message names the nearest valid one.
    """
    for name in [*objectives, *constraints]:
        if name != "quality" and name not in known:
            near = difflib.get_close_matches(name, [*known, "quality"], n=1, cutoff=0.0)[0]
            raise InvalidInput(f"unknown price {name!r}; did you mean {near!r}? Known: quality, {', '.join(known)}")
    if "quality" not in objectives:
        raise InvalidInput(f"objectives {list(objectives)} leave out 'quality'; add it")
    if len(set(objectives)) < 2:
        raise InvalidInput("give at least one price beside 'quality' as an objective, such as size_mb or latency_ms")
    if "quality" in constraints:
        raise InvalidInput("a constraint on quality is asked of the finished front: result.best(max_drop=...)")
    for name, limit in constraints.items():
        if not limit > 0:
            raise InvalidInput(f"constraint {name}: {limit} must be positive")


def spread(costs: np.ndarray, count: int, covered: np.ndarray) -> list[int]:
    """Indices of up to ``count`` points spread evenly over the costs of a front (farthest point first).

    Args:
        costs: price [points].
        count: how many to pick.
        covered: boolean [points], which are measured already.

    Returns:
        Indices in the order of picking: the two ends first.
    """
    scaled = (costs - costs.min()) / max(float(np.ptp(costs)), 1e-30)
    distance = np.full(len(costs), np.inf)
    for index in np.flatnonzero(covered):
        distance = np.minimum(distance, np.abs(scaled - scaled[index]))
    free = ~covered
    picked: list[int] = []
    while len(picked) < count and free.any():
        best = int(np.argmax(np.where(free, distance, -1.0)))
        if distance[best] <= 0:
            break
        picked.append(best)
        free[best] = False
        distance = np.minimum(distance, np.abs(scaled - scaled[best]))
    return picked


def interleave(*lists: Sequence[Proposal]) -> Iterator[Proposal]:
    """Take from each list in turn, each configuration once."""
    seen: set[Configuration] = set()
    for position in range(max((len(each) for each in lists), default=0)):
        for each in lists:
            if position < len(each) and each[position].configuration not in seen:
                seen.add(each[position].configuration)
                yield each[position]
