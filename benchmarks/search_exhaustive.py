"""Exhaustive truth: every configuration of a small task is measured once, then every way to search is replayed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import bitfront as bf
import numpy as np
from bitfront.evaluators import evaluation_context
from bitfront.measurement import Measurement
from bitfront.search import hypervolume
from bitfront.search.groups import Groups
from bitfront.search.problem import FLOAT
from bitfront.space import Configuration
from bitfront.store import Store
from search_tasks import PROXIES, Bed, Notebook, Samples, alone, looped

NAME, FORMATS = "digits_resnet20", ("w2", "w3", "w4")
SAMPLES = Samples(256, 64, 64, 64)
STAGES = (("conv1", "layer1."), "layer2.0.", "layer2.1.", "layer2.2.", "layer3.0.", "layer3.1.", "layer3.2.")  # and fc
AVG_BITS = 3.0
BUDGET = 64  # evaluations of a search
ALONE = (
    "exact_front", "diverse", "gaps", "bisection", "level_switch", "nsga2", "nsga3", "tpe", "gp",
    "regularized_evolution", "random",
)  # fmt: skip
FIXED = ("exact_front", "diverse", "gaps", "bisection")  # nothing is random in them: one run
SLOW = {"gp": 2}  # so many seeds of those that take a minute
PROBLEMS = {"budget": AVG_BITS, "front": None}


def bed(store: Store) -> Bed:
    """digits_resnet20 with eight tie groups: 6,561 configurations."""
    names = bf.SearchSpace.from_model(*_model(), formats=list(FORMATS), ties="none").names
    ties = [[name for name in names if name.startswith(stage)] for stage in STAGES]
    return Bed(NAME, FORMATS, SAMPLES, store, ties)


def _model() -> tuple[Any, Any]:
    entry = bf.zoo.load(NAME, calibration=16, validation=16, holdout=16)
    return entry.model, entry.example_inputs


def exhaustive(book: Notebook, store: Store, seeds: int) -> None:
    """Measure all, replay all."""
    of = bed(store)
    table = measured_table(of)
    groups = Groups.of(of.space)

    def answer(configurations: Sequence[Configuration], split: str) -> list[Measurement]:
        """From the table, which is also the held-out data: the truth is all that is asked for."""
        return [replace(table[each], split=split) for each in configurations]

    print(f"{len(table)} configurations, {len(groups)} groups", flush=True)
    truth = Truth(of, table)
    book.write("truth", truth.plain())
    problems = {name: of.problem(budget) for name, budget in PROBLEMS.items()}
    runs = dict.fromkeys(FIXED, 1) | SLOW
    plan = [(name, seed) for seed in range(seeds) for name in ("loop", *ALONE) if seed < runs.get(name, seeds)]
    for name, seed in plan:
        for problem_name, budget in PROBLEMS.items():
            key = f"{problem_name}/{name}/{seed}"
            if key in book:
                continue
            if book.over:
                print(f"the time is up before {key}")
                return
            started = time.perf_counter()
            if name == "loop":
                run = looped(of, budget, BUDGET, seed, answer)[1]
            else:
                run = alone(name, problems[problem_name], answer, BUDGET, seed)
            curve = truth.curve(run, budget)
            book.write(key, curve | {"seconds": time.perf_counter() - started})
            last = f"regret {curve['regret'][-1]:.3f}, hypervolume {curve['hypervolume'][-1]:.4f}"
            print(f"{key:32} {last}, {book[key]['seconds']:.2f} s", flush=True)


def measured_table(of: Bed) -> dict[Configuration, Measurement]:
    """Every configuration and the float model: measured, or read from the store."""
    groups = Groups.of(of.space)
    genes = np.array(list(itertools.product(*[np.flatnonzero(row) for row in groups.allowed])))
    every = [FLOAT, *(of.space.configuration(choice) for choice in groups.expand(genes))]
    context = evaluation_context(of.task, of.calibration, "validation")
    known = of.store.evaluations(context, "validation")
    missing = [each for each in every if each.digest not in known]
    started = time.perf_counter()
    for start in range(0, len(missing), 243):
        of.measured(missing[start : start + 243])
        print(f"{start + 243} of {len(missing)} after {time.perf_counter() - started:.0f} s", flush=True)
    known = of.store.evaluations(context, "validation")
    return {each: known[each.digest] for each in every}


class Truth:
    """The optimum and the front of the whole table, and how near a run comes."""

    def __init__(self, of: Bed, table: dict[Configuration, Measurement]) -> None:
        self.bed = of
        self.configurations = [each for each in table if each != FLOAT]
        self.quality = np.array([table[each].value for each in self.configurations])
        choices = np.stack([of.space.choice(each) for each in self.configurations])
        problem = of.problem(AVG_BITS)
        self.bits = problem.totals(choices, "avg_bits")
        self.index = {each: row for row, each in enumerate(self.configurations)}
        self.fits = problem.meets(choices)
        self.optimum = float(self.quality[self.fits].min())
        self.exact = {
            proxy: float(self.quality[self.index[problem.solve(proxy, {"avg_bits": AVG_BITS})]]) for proxy in PROXIES
        }
        self.uniform = float(
            min(self.quality[self.index[each]] for each in of.space.uniforms().values() if of.bits(each) <= AVG_BITS)
        )
        self.whole = self._volume(np.arange(len(self.quality)))

    def _volume(self, rows: np.ndarray) -> float:
        """Hypervolume of (log quality, average bits), both scaled to the table's range."""
        low, high = np.log(self.quality.min()), np.log(self.quality.max())
        points = np.column_stack([(np.log(self.quality[rows]) - low) / (high - low), (self.bits[rows] - 2) / 2])
        return float(hypervolume(points, np.ones(2)))

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "configurations": len(self.quality),
            "feasible": int(self.fits.sum()),
            "optimum": self.optimum,
            "uniform": self.uniform,
            "exact": self.exact,
            "rank": {proxy: int((self.quality[self.fits] < value).sum()) for proxy, value in self.exact.items()},
            "hypervolume": self.whole,
            "samples": SAMPLES.validation,
            "avg_bits": AVG_BITS,
        }

    def curve(self, run: list[Configuration], budget: float | None) -> dict[str, list[float]]:
        """Regret and share of the hypervolume after every evaluation."""
        rows = np.array([self.index[each] for each in run if each != FLOAT])[:BUDGET]
        regret = np.minimum.accumulate(np.where(self.fits[rows], self.quality[rows], np.inf)) / self.optimum - 1
        volume = [] if budget is not None else [self._volume(rows[: n + 1]) / self.whole for n in range(len(rows))]
        length = BUDGET - len(rows)  # what ran dry stays where it is
        volume = volume or [0.0]
        found = [*regret.tolist(), *[float(regret[-1])] * length]
        return {
            "regret": [float(min(each, 1e9)) for each in found][:BUDGET],
            "hypervolume": [*volume, *[volume[-1]] * length][:BUDGET],
            "evaluations": len(rows),
        }
