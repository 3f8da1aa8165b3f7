"""A search on a table: every configuration has known values, scores mislead, sites interact. No model is run."""

import hashlib
import itertools
import runpy
from pathlib import Path

import bitfront as bf
import numpy as np
import torch
from bitfront.errors import NonFiniteOutput
from bitfront.measurement import Measurement, part_of
from bitfront.search.executor import LocalExecutor
from bitfront.search.groups import Groups
from bitfront.search.loop import Loop
from bitfront.search.measurements import Halving, Measurements
from bitfront.search.problem import FLOAT
from bitfront.search.progress import Silent
from torch import nn

small = runpy.run_path(str(Path(__file__).parent / "proposers" / "proposer_cases.py"))["small"]
BATCHES, SIZE = 8, 8  # of the validation data
SAMPLES = BATCHES * SIZE


class World:
    """A small problem with its truth.

    The scores of the first proxy are the additive part of the truth, each site wrong by a factor; the quality adds what
    pairs of sites cost together, which no sum of scores can foretell.
    """

    def __init__(self, seed=0, sites=6, objectives=("quality", "avg_bits"), constraints=None, wrong=1.0, broken=()):
        self.problem = small(sites, objectives, constraints, seed)
        self.space, self.groups = self.problem.space, Groups.of(self.problem.space)
        generator = np.random.default_rng([seed, 5])
        scores = np.where(self.space.allowed, next(iter(self.problem.sensitivities.values())).values, 0.0)
        self.truth = scores * np.exp(wrong * generator.normal(size=(len(scores), 1)))
        self.pairs = list(itertools.pairwise(range(len(scores))))
        self.weight = generator.exponential(3.0, size=len(self.pairs))
        self.hard = generator.exponential(size=SAMPLES)
        self.broken = set(broken)
        self.task = _task()

    def quality(self, choice):
        each = self.truth[np.arange(len(choice)), choice]
        joint = sum(w * np.sqrt(each[a] * each[b]) for w, (a, b) in zip(self.weight, self.pairs, strict=True))
        return float(each.sum() + joint)

    def values(self, configuration):
        """The metric of every validation sample: the quality times how hard the sample is, and a little noise."""
        if configuration == FLOAT:
            return np.zeros(SAMPLES)
        seed = int(hashlib.sha256(configuration.digest.encode()).hexdigest()[:8], 16)
        noise = np.random.default_rng(seed).lognormal(0.0, 0.05, SAMPLES)
        return self.quality(self.space.choice(configuration)) * self.hard * noise

    def measured(self, configuration):
        return float(self.values(configuration).mean())

    def everything(self):
        """Every configuration that meets the constraints, and its measured quality."""
        options = [np.flatnonzero(row) for row in self.groups.allowed]
        choices = self.groups.expand(np.array(list(itertools.product(*options))))
        choices = choices[self.problem.meets(choices)]
        configurations = [self.space.configuration(choice) for choice in choices]
        return configurations, np.array([self.measured(each) for each in configurations])

    def loop(self, evaluations=40, *, known=None, partial=None, halving=None, progress=None, **options):
        watch = progress or Silent()
        measurements = Measurements(self.problem, dict(known or {}), watch, dict(partial or {}), halving)
        return Loop(self.problem, measurements, evaluations, **options)

    def halving(self, samples=8, factor=4):
        return Halving.of(self.task, samples, factor)

    def run(self, loop, shard_size=None, commit=None):
        """Drive a loop to its end; its table of evaluations."""
        table = Table(self)

        def committed(outcome):
            if commit is not None:
                commit(outcome)
            loop.measurements.arrived(outcome)

        LocalExecutor(shard_size).drive(loop.rounds(), table, committed)
        return table


class Table:
    """Recipe and evaluator in one: looks values up, and notes what it was asked for."""

    def __init__(self, world):
        self.world, self.asked = world, []

    def build(self):
        return self

    def order(self, batch):
        return sorted(range(len(batch)), key=lambda index: (batch[index].split, batch[index].batches or 0, -index))

    def samples(self, work):
        return (work.batches or BATCHES) * SIZE - (work.known.samples if work.known else 0)

    def evaluate_many(self, configurations, split="validation", *, batches=None, races=None, known=None):
        for index, configuration in enumerate(configurations):
            if any(name in configuration.values() for name in self.world.broken):
                yield NonFiniteOutput("NaN")
                continue
            values, end = self.world.values(configuration), (batches or BATCHES) * SIZE
            at = known[index].samples if known and known[index] else 0
            race, begun = races[index] if races else None, at
            while at < end:
                at += SIZE
                if race is not None and race.lost(values[:at]):
                    break
            self.asked.append((configuration, split, begun, at))
            name = split if at == SAMPLES else part_of(split, at)
            yield Measurement.of("kl", name, values[:at], 1e-3)


def _task():
    torch.manual_seed(0)
    batches = [torch.randn(SIZE, 2) for _ in range(BATCHES)]
    return bf.Task(nn.Linear(2, 2), calibration=batches[:1], validation=batches, holdout=batches[:1], quality="kl")
