"""What the parts of ``benchmarks/search.py`` share: networks, their data, and measurements that are kept in a store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import bitfront as bf
import numpy as np
from bitfront import zoo
from bitfront.evaluators import Calibration, FakeQuantEvaluator, evaluation_context
from bitfront.files import write_text
from bitfront.hw_models import Prices, price
from bitfront.measurement import Difference, Measurement, difference
from bitfront.proxies import Sensitivity
from bitfront.search import Outcome, Silent, calibrated
from bitfront.search.executor import Commit, EvaluatorRecipe, Rounds
from bitfront.search.problem import FLOAT, Problem, Proposal
from bitfront.search.proposers import Evaluated, make
from bitfront.search.stages import scored
from bitfront.space import Configuration
from bitfront.store import Store
from bitfront.task import Split

FOUR, SEVEN = ("w2", "w3", "w4", "w8"), ("w2", "w3", "w4", "w5", "w6", "w7", "w8")
PROXIES = ("measured_kl", "hessian_trace")  # of the loop: the first one is its answer without any evaluation
QUALITY = {"digits_resnet20": "kl", "efficientnet_lite0": "kl"}  # of the others that of the zoo
FINALISTS = 8  # of the best on the validation data that get further samples
CHUNK = 12  # configurations measured between commits


@dataclass(frozen=True)
class Samples:
    """How many samples each split has; ``test`` is seen by no search and by no choice."""

    calibration: int
    validation: int
    holdout: int
    test: int


SAMPLES = {
    "digits_resnet20": Samples(256, 256, 128, 256),
    "minilm_l6": Samples(32, 32, 32, 64),
    "efficientnet_lite0": Samples(32, 96, 64, 96),  # crops of six photographs for each of the first three
}
RECIPES = {"efficientnet_lite0": bf.Recipe(bias_correction=True)}  # without it 4 bits are useless


@dataclass
class Bed:
    """A network with its data, formats and ties, and a store of everything measured on it.

    Args:
        name: of the zoo.
        formats: offered everywhere.
        samples: of each split.
        store: where evaluations, scores and calibrations are kept.
        ties: as for ``SearchSpace.from_model``.
    """

    name: str
    formats: tuple[str, ...]
    samples: Samples
    store: Store
    ties: Any = "auto"
    _evaluators: dict[str, FakeQuantEvaluator] = field(default_factory=dict, repr=False)
    _scores: dict[str, Sensitivity] = field(default_factory=dict, repr=False)
    _known: dict[str, tuple[str, dict[str, Measurement]]] = field(default_factory=dict, repr=False)

    @cached_property
    def entry(self) -> zoo.ZooEntry:
        """The network and its data."""
        of = self.samples
        return zoo.load(
            self.name, calibration=of.calibration, validation=of.validation, holdout=of.holdout + of.test, seed=0
        )

    @cached_property
    def task(self) -> bf.Task:
        """What the search sees: ``holdout`` is the part that its own last check is made on."""
        return self._task(test=False)

    @cached_property
    def judge(self) -> bf.Task:
        """The same network with the test samples as its held-out data."""
        return self._task(test=True)

    def _task(self, test: bool) -> bf.Task:
        entry, kept, taken = self.entry, [], 0
        for batch in entry.holdout:
            size = len(bf.Task(entry.model, calibration=[batch], validation=[batch], holdout=[batch]).holdout[0])
            if (taken >= self.samples.holdout) == test:
                kept.append(batch)
            taken += size
        return bf.Task(
            entry.model,
            calibration=entry.calibration,
            validation=entry.validation,
            holdout=kept,
            loss=entry.loss,
            quality=QUALITY.get(self.name, entry.quality),
            name=self.name,
        )

    @cached_property
    def space(self) -> bf.SearchSpace:
        """Sites and formats."""
        return bf.SearchSpace.from_model(
            self.entry.model, self.entry.example_inputs, formats=list(self.formats), ties=self.ties
        )

    @property
    def recipe(self) -> bf.Recipe:
        """How weights are rounded."""
        return RECIPES.get(self.name, bf.Recipe())

    @cached_property
    def calibration(self) -> Calibration:
        """Scales of every (site, format)."""
        return calibrated(self.task, self.space, self.recipe, self.store, Silent())

    @cached_property
    def prices(self) -> Prices:
        """Average bits and size."""
        return price(self.space, metrics=["avg_bits", "size_mb"])

    def scores(self, proxies: Sequence[str]) -> dict[str, Any]:
        """Sensitivities by proxy."""
        for name in proxies:
            if name not in self._scores:
                self._scores[name] = scored(self.task, self.space, self.calibration, name, 0, self.store, Silent())
        return {name: self._scores[name] for name in proxies}

    def problem(self, avg_bits: float | None, proxies: Sequence[str] = PROXIES) -> Problem:
        """The additive problem with average bits as the price, and as the budget where one is given."""
        constraints = {} if avg_bits is None else {"avg_bits": avg_bits}
        return Problem(self.space, self.scores(proxies), self.prices, ("quality", "avg_bits"), constraints)

    def measured(self, configurations: Sequence[Configuration], split: str = "validation") -> list[Measurement]:
        """Measurements of configurations, from the store or made now.

        Args:
            configurations: what.
            split: ``validation``, ``holdout`` (that of the search) or ``test``.
        """
        real: Split = "validation" if split == "validation" else "holdout"
        if split not in self._known:
            task = self.judge if split == "test" else self.task
            context = evaluation_context(task, self.calibration, real)
            self._known[split] = context, self.store.evaluations(context, real)
        context, known = self._known[split]
        missing = [each for each in dict.fromkeys(configurations) if each.digest not in known]
        for start in range(0, len(missing), CHUNK):
            part = missing[start : start + CHUNK]
            for configuration, found in zip(part, self._evaluator(split).evaluate_many(part, real), strict=True):
                if not isinstance(found, Measurement):
                    raise SystemExit(f"{self.name} {configuration.digest}: {found}")
                self.store.save_evaluation(context, configuration, found, "benchmark")
                known[configuration.digest] = found
        return [known[each.digest] for each in configurations]

    def _evaluator(self, split: str) -> FakeQuantEvaluator:
        key = "test" if split == "test" else "search"
        if key not in self._evaluators:
            task = self.judge if split == "test" else self.task
            self._evaluators[key] = FakeQuantEvaluator(task, self.space, self.calibration)
        return self._evaluators[key]

    def float_quality(self) -> float:
        """Of the float model on the validation data."""
        return self.measured([FLOAT])[0].value

    def bits(self, configuration: Configuration) -> float:
        """Average bits of a configuration."""
        return float(self.prices.of(configuration)["avg_bits"].value)


def with_more_data(bed: Bed, order: Sequence[Configuration], avg_bits: float) -> Configuration:
    """Of the best on the validation data, the one that is best when further samples are added to it."""
    fitting = [each for each in order if bed.bits(each) <= avg_bits * (1 + 1e-9)]
    best = sorted(fitting, key=lambda each: bed.measured([each])[0].value)[:FINALISTS]

    def pooled(configuration: Configuration) -> float:
        found = [bed.measured([configuration], split)[0].values for split in ("validation", "holdout")]
        return float(np.mean(np.concatenate([np.array(values) for values in found])))

    return min(best, key=pooled)


def greedy(loss: np.ndarray, cost: np.ndarray, limit: float, groups: Sequence[Sequence[int]]) -> np.ndarray:
    """From the cheapest on, the step with the largest gain per price that still fits; tied sites step together.

    Args:
        loss: [sites, formats].
        cost: [sites, formats].
        limit: largest total price.
        groups: sites that step together.

    Returns:
        Columns [sites].
    """
    joint = np.stack([loss[list(group)].sum(axis=0) for group in groups])
    price_of = np.stack([cost[list(group)].sum(axis=0) for group in groups])
    rows = np.arange(len(joint))
    genes = price_of.argmin(axis=1)
    while True:
        gain = joint[rows, genes][:, None] - joint
        rise = price_of - price_of[rows, genes][:, None]
        fits = (gain > 0) & (rise > 0) & (price_of[rows, genes].sum() + rise <= limit * (1 + 1e-9))
        if not fits.any():
            break
        rate = np.where(fits, gain / np.where(rise > 0, rise, 1.0), -np.inf)
        group, column = divmod(int(rate.argmax()), joint.shape[1])
        genes[group] = column
    choice = np.zeros(len(loss), dtype=np.int64)
    for group, column in zip(groups, genes, strict=True):
        choice[list(group)] = column
    return choice


def told(found: Measurement) -> dict[str, float]:
    """Value and interval, as plain data."""
    return {"value": found.value, "low": found.low, "high": found.high, "samples": found.samples}


def gap(first: Measurement, second: Measurement) -> dict[str, Any]:
    """The paired difference, as plain data, and the ratio of the values."""
    found: Difference = difference(first, second)
    ratio = first.value / second.value if second.value > 0 else None
    return {"value": found.value, "low": found.low, "high": found.high, "ratio": ratio}


class Notebook:
    """A JSON file that is written after every entry, so that a stopped run goes on where it was.

    Args:
        path: of the file.
        seconds: after so many ``over`` is true.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path = path
        self.content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self._end = time.perf_counter() + seconds

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.perf_counter() > self._end

    def __contains__(self, key: str) -> bool:
        """Whether there is an entry."""
        return key in self.content

    def __getitem__(self, key: str) -> Any:
        """An entry."""
        return self.content[key]

    def write(self, key: str, value: Any) -> None:
        """Add or replace an entry."""
        self.content[key] = value
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, json.dumps(self.content, indent=1) + "\n")


class Forgetful(Store):
    """The same scores and calibrations, but no evaluation is known and none is kept: a search asks for all of them."""

    def evaluations(self, context: str, split: str) -> dict[str, Measurement]:
        """None."""
        return {}

    def save_evaluation(
        self, context: str, configuration: Configuration, measurement: Measurement, worker: str = ""
    ) -> None:
        """Nothing."""


Answer = Callable[[Sequence[Configuration], str], list[Measurement]]


class Replay:
    """An executor that gets measurements from a table or a store, and remembers in which order they were asked for.

    Args:
        answer: of configurations and a split, the measurements.
    """

    workers = 1

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.order: list[Configuration] = []

    def drive(self, rounds: Rounds, recipe: EvaluatorRecipe, commit: Commit) -> None:
        """See ``Executor.drive``."""
        try:
            works = next(rounds)
            while True:
                split = works[0].split  # a round is on one split
                found = self.answer([work.configuration for work in works], split)
                outcomes = [Outcome(work, each, worker="benchmark") for work, each in zip(works, found, strict=True)]
                if split == "validation":
                    self.order += [work.configuration for work in works if work.configuration != FLOAT]
                for outcome in outcomes:
                    commit(outcome)
                works = rounds.send(outcomes)
        except StopIteration:
            return
        finally:
            rounds.close()


def looped(
    bed: Bed, avg_bits: float | None, evaluations: int, seed: int = 0, answer: Answer | None = None, **options: Any
) -> tuple[bf.search.Result, list[Configuration]]:
    """The whole loop: its result, and what it evaluated in order, uniform configurations first.

    Args:
        bed: network, formats, store.
        avg_bits: budget, or ``None``.
        evaluations: uniform ones included.
        seed: of the search.
        answer: where measurements come from; default: the store of the bed, measured where they are missing.
        options: of ``bf.run``.
    """
    executor = Replay(answer or bed.measured)
    store = Forgetful(bed.store.url)
    result = bf.run(
        bed.task,
        bed.space,
        objectives=["quality", "avg_bits"],
        constraints=None if avg_bits is None else {"avg_bits": avg_bits},
        evaluations=evaluations,
        seed=seed,
        executor=executor,
        proxies=list(PROXIES),
        recipe=bed.recipe,
        store=store,
        **options,
    )
    store.close()
    return result, executor.order


def alone(
    name: str, problem: Problem, answer: Answer, evaluations: int, seed: int, batch: int = 4, **options: Any
) -> list[Configuration]:
    """One proposer without the rest of the loop, in the order of its evaluations, uniform configurations first.

    It is told the uniform configurations, then asked for ``batch`` at a time and told what they measure.
    """
    proposer = make(name, problem, seed, **options)
    run = list(dict.fromkeys(problem.space.uniforms().values()))[:evaluations]
    asked = [Proposal(each, "uniform") for each in run]
    while asked:
        found = answer([each.configuration for each in asked], "validation")
        proposer.tell([_evaluated(problem, each, one) for each, one in zip(asked, found, strict=True)])
        asked = proposer.ask(min(batch, evaluations - len(run)))
        run += [each.configuration for each in asked]
    return run


def _evaluated(problem: Problem, proposal: Proposal, found: Measurement) -> Evaluated:
    choice = problem.space.choice(proposal.configuration)
    costs = np.array([problem.totals(choice[None], metric)[0] for metric in problem.price_objectives])
    fits = bool(problem.meets(choice[None])[0])
    return Evaluated(proposal.configuration, choice, proposal.origin, found, costs, fits)
