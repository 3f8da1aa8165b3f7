"""A small space whose true losses are known: scores are the truth with errors, qualities follow from the truth."""

from dataclasses import dataclass
from itertools import pairwise

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.measurement import Measurement
from bitfront.proxies import Sensitivity
from bitfront.search.groups import Groups
from bitfront.search.problem import Problem
from bitfront.search.proposers.proposer import Evaluated
from torch import nn

FORMATS = ["w2", "w3", "w4", "w8"]


@dataclass
class World:
    problem: Problem
    truth: np.ndarray  # [groups, formats]
    groups: Groups
    slope: float = 1.6
    level: float = -2.0

    def genes(self, count, seed):
        generator = np.random.default_rng(seed)
        drawn = {tuple(generator.integers(0, len(FORMATS), len(self.groups))) for _ in range(3 * count)}
        return np.array(sorted(drawn))[generator.permutation(len(drawn))[:count]]

    def latent(self, genes):
        return self.level + self.slope * np.log(self.truth[np.arange(len(self.groups)), genes].sum(axis=1))

    def evaluated(self, genes, *, noise=0.0, seed=0, float_quality=0.0):
        generator = np.random.default_rng(seed)
        values = float_quality + np.exp(self.latent(genes) + noise * generator.standard_normal(len(genes)))
        return [self.told(each, value) for each, value in zip(genes, values, strict=True)]

    def told(self, genes, value, width=0.02):
        choice = self.groups.expand(genes)
        found = Measurement("kl", "validation", float(value), float(value) - width, float(value) + width, 0.1, 64)
        if value > 0:
            found = Measurement("kl", "validation", float(value), float(value) * 0.9, float(value) * 1.1, 0.1, 64)
        costs = self.problem.totals(choice[None], "avg_bits")
        return Evaluated(self.problem.space.configuration(choice), choice, "test", found, costs, True)


def make_world(error=0.8, proxies=1, seed=0):
    torch.manual_seed(0)
    widths = [8, 16, 12, 20, 8, 24, 16, 12, 8, 16, 4]
    model = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))
    space = bf.SearchSpace.from_model(model, torch.randn(2, 8), formats=FORMATS, ties=[["1", "6"]])
    groups = Groups.of(space)
    generator = np.random.default_rng(seed)
    falling = np.array([1.0, 0.25, 0.06, 0.0005])
    sites = np.exp(generator.normal(0, 0.7, len(space.sites)))[:, None] * falling
    truth = groups.sums(sites) * np.exp(generator.normal(0, 0.1, (len(groups), len(FORMATS))))
    scores = {}
    for number in range(proxies):
        wrong = np.exp(error * generator.normal(size=(len(groups), 1)) + 0.1 * generator.normal(size=(len(groups), 4)))
        table = (truth * wrong)[groups.of_site]
        for group in groups.sites:
            table[list(group)] /= len(group)
        name = f"proxy{number}"
        scores[name] = Sensitivity(name, table, None, tuple(space.names), space.formats, 0.0)
    prices = bf.price(space, metrics=["avg_bits", "size_mb"])
    return World(Problem(space, scores, prices, ("quality", "avg_bits"), {}), truth, groups)


@pytest.fixture(scope="session")
def world():
    return make_world()


@pytest.fixture(scope="session")
def worlds():
    return make_world
