"""Pairwise perturbation against plain runs, exact interactions of a quadratic loss, and exhaustive search."""

import runpy
from itertools import product
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.evaluators import FakeQuantEvaluator, calibrate
from bitfront.proxies.measured import MeasuredLoss
from bitfront.proxies.pairwise import Pairwise, sensitive
from bitfront.search.allocation import allocate
from torch import nn

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
images = CASES["images"]
FORMATS = ("w2", "w4", "w4a8", "fp32")


def layers(quality, formats=FORMATS, ties="none", depth=3):
    torch.manual_seed(0)
    steps = [each for _ in range(depth - 1) for each in (nn.Linear(6, 6), nn.Tanh())]
    model = nn.Sequential(*steps, nn.Linear(6, 5))
    data = [(torch.randn(12, 6), torch.randint(0, 5, (12,))) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality=quality)
    space = bf.SearchSpace.from_model(model, data[0], formats=list(formats), ties=ties)
    return task, space, calibrate(task, space)


def measured(task, space, calibration, configuration):
    """Mean increase of the task's metric on the calibration data, by whole runs."""
    evaluator = FakeQuantEvaluator(task, space, calibration, replay="never")
    return evaluator.evaluate(configuration, "calibration").value - evaluator.evaluate({}, "calibration").value


@pytest.mark.parametrize("quality", ["kl", "loss"])
def test_interactions_are_those_of_whole_runs(quality):
    task, space, calibration = layers(quality)
    found = Pairwise(sites=3).score(task, space, calibration, seed=0, advance=None)
    assert set(found.pairs) == {(0, 1), (0, 2), (1, 2)}
    for (one, other), table in found.pairs.items():
        for first, second in product(range(len(space.formats)), repeat=2):
            names = {space.names[one]: space.formats[first], space.names[other]: space.formats[second]}
            alone = [measured(task, space, calibration, {site: name}) for site, name in names.items()]
            wanted = measured(task, space, calibration, names) - sum(alone)
            assert table[first, second] == pytest.approx(wanted, abs=1e-12)
    assert max(np.abs(table).max() for table in found.pairs.values()) > 1e-6


def test_single_values_are_those_of_measured_loss():
    task, space, calibration = layers("loss")
    found = Pairwise().score(task, space, calibration, seed=0, advance=None)
    alone = MeasuredLoss().score(task, space, calibration, seed=0, advance=None)
    assert np.array_equal(found.values, alone.values, equal_nan=True)
    assert np.array_equal(found.error, alone.error, equal_nan=True)


def test_interactions_of_two_summed_layers_are_the_block_of_the_hessian():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 4), nn.Linear(5, 4)

        def forward(self, x):
            return self.a(x) + self.b(x)

    def half_square(outputs, targets):
        return 0.5 * (outputs - targets).square().sum(1).mean()

    torch.manual_seed(0)
    data = [(torch.randn(7, 5), torch.randn(7, 4)) for _ in range(3)]
    task = bf.Task(Sum(), calibration=data[:1], validation=data[1:], loss=half_square, quality="loss")
    space = bf.SearchSpace.from_model(task.model, data[0], formats=["w2", "w3"], ties="none")
    calibration = calibrate(task, space)
    found = Pairwise().score(task, space, calibration, seed=0, advance=None)
    inputs = data[0][0].double()
    moves = [
        [CASES["weight_error"](task, space, calibration, site, name) for name in space.formats] for site in space.sites
    ]
    for first, second in product(range(2), repeat=2):
        wanted = ((inputs @ moves[0][first].T) * (inputs @ moves[1][second].T)).sum(1).mean()
        assert found.pairs[0, 1][first, second] == pytest.approx(float(wanted), rel=1e-3, abs=1e-6)


def test_two_sites_are_predicted_exactly_and_allocate_finds_the_best():
    task, space, calibration = layers("kl", ("w2", "w3", "w4"), depth=2)
    found = Pairwise().score(task, space, calibration, seed=0, advance=None)
    bits = bf.price(space, metrics=["avg_bits"])["avg_bits"].values
    limit = float(np.median([bits[0, one] + bits[1, other] for one, other in product(range(3), repeat=2)]))
    truth = {}
    for choice in product(range(3), repeat=2):
        configuration = space.configuration(choice).to_dict()
        truth[choice] = measured(task, space, calibration, configuration)
        assert found.joint(configuration) == pytest.approx(truth[choice], abs=1e-12)
        plain = found.values[0, choice[0]] + found.values[1, choice[1]]
        assert found.of(configuration) == pytest.approx(plain)
    answer = allocate(found.values, {"bits": bits}, {"bits": limit}, pair_loss=found.pairs)
    feasible = {choice: loss for choice, loss in truth.items() if bits[0, choice[0]] + bits[1, choice[1]] <= limit}
    assert tuple(answer.choice.tolist()) == min(feasible, key=feasible.__getitem__)
    assert answer.objective == pytest.approx(min(feasible.values()), abs=1e-9)


def test_only_the_most_sensitive_sites_are_paired():
    task, space, calibration = layers("kl", depth=5)
    found = Pairwise(sites=2).score(task, space, calibration, seed=0, advance=None)
    spread = np.ptp(found.values, axis=1)
    assert list(found.pairs) == [tuple(sorted(np.argsort(-spread)[:2].tolist()))]
    assert sensitive(np.array([[0.0, 5.0], [1.0, np.nan], [3.0, 1.0]]), 2) == [0, 2]


def test_formats_that_are_not_offered_or_change_nothing():
    task, space, calibration = images("kl", ("w2", "w4a8d", "fp32"))
    assert not space.allowed[0, space.formats.index("w4a8d")]
    found = Pairwise().score(task, space, calibration, seed=0, advance=None)
    table, fp32 = found.pairs[0, 1], space.formats.index("fp32")
    assert np.array_equal(np.isnan(table), ~(space.allowed[0][:, None] & space.allowed[1]))
    assert np.all(np.nan_to_num(table[fp32]) == 0)
    assert np.all(np.nan_to_num(table[:, fp32]) == 0)


def test_tied_sites_are_run_in_equal_formats_only():
    task, space, calibration = layers("kl", ("w2", "w4"), ties=[["0", "2"]])
    steps = []
    proxy = Pairwise()
    found = proxy.score(task, space, calibration, seed=0, advance=steps.append)
    off_diagonal = ~np.eye(2, dtype=bool)
    assert np.all(found.pairs[0, 1][off_diagonal] == 0)
    assert np.all(found.pairs[0, 1].diagonal() != 0)
    assert np.all(found.pairs[0, 2] != 0)
    assert sum(steps) == 6 + 2 + 4 + 4 <= proxy.steps(task, space)


def test_one_site_cannot_be_paired():
    task, space, calibration = images("kl")
    with pytest.raises(InvalidInput, match="at least 2"):
        Pairwise(sites=1).score(task, space, calibration, seed=0, advance=None)
