"""Budgets on a price that is no sum over sites: neighbours in unlike formats cost extra."""

import itertools

import numpy as np
import pytest
import torch
from bitfront.errors import InfeasibleBudget
from bitfront.hw_models import Prices, PriceTable
from bitfront.proxies import Sensitivity
from bitfront.search.problem import Problem
from bitfront.space import SearchSpace
from torch import nn

PENALTY = 1.0


class Unlike:
    """The sum of the values, and a penalty for each pair of neighbours in unlike formats."""

    def __init__(self, values, base):
        self.values, self.base = values, base

    def predict(self, choices):
        unlike = (choices[:, 1:] != choices[:, :-1]).sum(axis=1)
        value = self.base + self.values[np.arange(choices.shape[1]), choices].sum(axis=1) + PENALTY * unlike
        return value, value, value

    def interval(self, choice):
        return tuple(float(column[0]) for column in self.predict(choice[None]))


def problem_of(seed):
    space = SearchSpace.from_model(nn.Sequential(*[nn.Linear(4, 4) for _ in range(5)]), torch.zeros(1, 4), ["w4", "w8"])
    rng = np.random.default_rng(seed)
    values = np.stack([rng.uniform(1, 2, 5), rng.uniform(2, 4, 5)], axis=1)
    losses = np.stack([rng.uniform(1, 2, 5), rng.uniform(0, 1, 5)], axis=1)
    scores = Sensitivity("proxy", losses, None, tuple(space.names), space.formats, 0.0, 0, 0, True)
    table = PriceTable("latency_ms", "ms", values, 0 * values, 0.5, "measured", "test", whole=Unlike(values, 0.5))
    return Problem(space, {"proxy": scores}, Prices(space, {"latency_ms": table}), ("quality", "latency_ms"), {})


@pytest.mark.parametrize("seed", range(10))
def test_solutions_hold_the_budget_in_the_total(seed):
    problem = problem_of(seed)
    choices = np.array(list(itertools.product(range(2), repeat=5)))
    totals = problem.totals(choices, "latency_ms")
    summed = 0.5 + problem.cost("latency_ms")[np.arange(5), choices].sum(axis=1)
    np.testing.assert_allclose(totals - summed, PENALTY * (np.diff(choices, axis=1) != 0).sum(axis=1))
    for budget in np.linspace(totals.min() * 1.3, totals.max(), 6):
        solved = problem.space.choice(problem.solve("proxy", {"latency_ms": budget}))
        held = totals <= budget * (1 + 1e-9)
        uniform = choices[held & (np.ptp(choices, axis=1) == 0)]
        if len(uniform):  # else no more is promised than the optimum of the sums
            assert problem.totals(solved[None], "latency_ms")[0] <= budget * (1 + 1e-9)
            loss = problem.loss("proxy")
            best = min(loss[np.arange(5), choice].sum() for choice in uniform)
            assert loss[np.arange(5), solved].sum() <= best + 1e-12


def test_a_budget_below_every_sum_is_refused():
    problem = problem_of(0)
    with pytest.raises(InfeasibleBudget, match="smallest reachable alone"):
        problem.solve("proxy", {"latency_ms": 1.0})
