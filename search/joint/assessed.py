"""The inner problem: one architecture with the exact fronts of its formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...architecture import Choices, Genome
from ...errors import InfeasibleBudget
from ...hw_models import Price
from ...space import Configuration
from ..problem import Problem
from ..progress import Silent
from ..stages import priced, scores_of
from ..stored_problem import StoredProblem
from .space import Subnets

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Asked:
    """What the inner problem of every architecture asks.

    Attributes:
        objectives: ``quality`` and prices.
        constraints: price -> largest value allowed.
        metrics: what is priced: objectives, constraints, and what is only shown.
        proxy: predicts the loss.
        device: that latency is priced for.
        batch: samples per forward pass.
        runtime: whose tables price a named GPU.
        seed: of the proxy.
    """

    objectives: tuple[str, ...]
    constraints: dict[str, float]
    metrics: tuple[str, ...]
    proxy: str = "sqnr"
    device: str = "cpu"
    batch: int = 1
    runtime: str | None = None
    seed: int = 0

    @property
    def prices(self) -> list[str]:
        """The objectives that are prices."""
        return [name for name in self.objectives if name != "quality"]


@dataclass(frozen=True)
class Assessed:
    """An architecture with scores, prices and the exact fronts of its formats.

    Attributes:
        choices: the architecture.
        problem: sites, scores, prices.
        proxy: whose scores.
        front: the points of its exact fronts that meet the constraints, as columns of formats: int64 [points, sites].
        scores: additive score of each point [points].
        costs: its price objectives [points, prices].
        refused: why there is no point; empty where there are some.
    """

    choices: Choices
    problem: Problem = field(repr=False)
    proxy: str
    front: IntArray = field(repr=False)
    scores: FloatArray = field(repr=False)
    costs: FloatArray = field(repr=False)
    refused: str = ""

    @cached_property
    def numbers(self) -> FloatArray:
        """What describes the architecture to the law of qualities: logs of its least and largest prices [2 prices]."""
        space = self.problem.space
        every = np.array([space.choice(each) for each in space.uniforms().values()])
        totals = np.column_stack([self.problem.totals(every, name) for name in self.problem.price_objectives])
        found: FloatArray = np.log(np.maximum([*totals.min(axis=0), *totals.max(axis=0)], 1e-300))
        return found

    def genome(self, point: int) -> Genome:
        """A point of the front as a genome."""
        return Genome(self.choices, self.problem.space.configuration(self.front[point]))

    def score(self, configuration: Configuration) -> float:
        """The additive score of a configuration; 0 for the float network."""
        return self.problem.sensitivities[self.proxy].joint(configuration) if configuration.pairs else 0.0

    def price(self, configuration: Configuration) -> dict[str, Price]:
        """What a configuration costs, by metric."""
        return self.problem.prices.of(configuration)

    def meets(self, configuration: Configuration) -> bool:
        """Whether a configuration meets the constraints."""
        return bool(self.problem.meets(self.problem.space.choice(configuration)[None])[0])

    def cost(self, configuration: Configuration) -> FloatArray:
        """Its price objectives [prices]."""
        choice = self.problem.space.choice(configuration)[None]
        return np.array([self.problem.totals(choice, name)[0] for name in self.problem.price_objectives])


def assess(subnets: Subnets, choices: Choices, asked: Asked) -> Assessed:
    """Score and price an architecture and solve its exact fronts; what the store knows is not computed again.

    With one price objective the front is the exact one of score against it. With several it is the union of the exact
    fronts against each; a point between that is on none of them is not in it.

    Args:
        subnets: build, calibrate and keep.
        choices: the architecture.
        asked: objectives, constraints, device, proxy.

    Raises:
        InvalidInput: the proxy cannot score it, or a price is not known.
        UnsupportedModel: the network fails on the data.
    """
    if subnets.store is None:
        raise RuntimeError("architectures are assessed where the store is")
    net, calibration, watch = subnets.at(choices), subnets.calibration(choices), Silent()
    prices = priced(
        net.space,
        asked.device,
        asked.batch,
        asked.metrics,
        subnets.store,
        watch,
        ledger=subnets.ledger,
        runtime=asked.runtime,
    )
    scores, _ = scores_of(
        net.task, net.space, calibration, [asked.proxy], asked.seed, subnets.store, watch, False, ledger=subnets.ledger
    )
    problem = StoredProblem(
        net.space,
        scores,
        prices,
        asked.objectives,
        dict(asked.constraints),
        store=subnets.store,
        ledger=subnets.ledger,
        kept=frozenset(scores),
    )
    return solved(choices, problem, asked.proxy)


def solved(choices: Choices, problem: Problem, proxy: str) -> Assessed:
    """An architecture whose problem is known, with the points of its fronts."""
    count = len(problem.space.sites)
    empty = np.zeros((0, count), dtype=np.int64)
    try:
        fronts = [problem.front(proxy, metric) for metric in problem.price_objectives]
    except InfeasibleBudget as cause:
        return Assessed(
            choices, problem, proxy, empty, np.zeros(0), np.zeros((0, len(problem.price_objectives))), str(cause)
        )
    points = np.unique(np.concatenate([empty, *fronts]), axis=0).astype(np.int64)
    costs = np.column_stack([problem.totals(points, metric) for metric in problem.price_objectives])
    pairs = problem.pairs(proxy)
    scores = problem.loss(proxy)[np.arange(count), points].sum(axis=1)
    for (one, other), table in pairs.items():
        scores = scores + table[points[:, one], points[:, other]]
    reason = "" if len(points) else "no point of its fronts meets the constraints"
    return Assessed(choices, problem, proxy, points, scores, costs, reason)


Predictor = Callable[[Choices], float]
"""Quality of the float network of an architecture (lower is better), foretold without running it."""
