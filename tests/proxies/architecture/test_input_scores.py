"""Jacobian covariance, synaptic flow, Zen-score, parameters and operations."""

import math

import numpy as np
import pytest
import torch
from bitfront.errors import UnsupportedModel
from bitfront.proxies.architecture.flops import FLOPs
from bitfront.proxies.architecture.jacov import JacobianCovariance
from bitfront.proxies.architecture.params import Params
from bitfront.proxies.architecture.synflow import SynFlow
from bitfront.proxies.architecture.zen import Zen
from bitfront.search.families.nasbench201 import NasBench201, cell_choices, stored_scores
from bitfront.task import Batch
from scipy.stats import spearmanr
from torch import nn


def images(samples=6, side=6, seed=1, dtype=torch.float64):
    return torch.randn(samples, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def convolutional(seed=0):
    torch.manual_seed(seed)
    body = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 5, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*body, nn.Linear(5, 3)).double()


def test_jacobians_are_correlated_as_numpy_does():
    module, value = convolutional(), images().requires_grad_(True)
    module.train()(value).sum().backward()
    values = np.linalg.eig(np.corrcoef(value.grad.flatten(1).numpy()))[0].real
    wanted = -np.sum(np.log(values + 1e-5) + 1 / (values + 1e-5))
    assert JacobianCovariance().score(convolutional().eval(), Batch((images(),)), None, 0) == pytest.approx(wanted)
    assert wanted < -6  # the bound of uncorrelated ones


def test_jacobians_that_are_constant_are_the_worst():
    module = nn.Sequential(nn.Flatten(), nn.Linear(108, 2), nn.ReLU()).double()
    nn.init.constant_(module[1].bias, -1e3)
    assert JacobianCovariance().score(module, Batch((images(),)), None, 0) == -math.inf


def test_the_flow_of_a_chain_is_a_product_for_every_layer():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 5, bias=False), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 2, bias=False))
    one, two = (module[index].weight.detach().double().abs() for index in (0, 3))
    wanted = math.log(2 * float((two @ one).sum()))  # conserved: the same sum for both layers
    data = Batch((torch.randn(4, 3),))
    assert SynFlow().score(module, data, None, 0) == pytest.approx(wanted)
    assert SynFlow().score(module, Batch((5 * torch.randn(9, 3),)), None, 1) == pytest.approx(wanted)
    nn.init.zeros_(module[0].weight)
    assert SynFlow().score(module, data, None, 0) == -math.inf


@pytest.mark.reference
def test_the_flow_is_the_published_one(reference_data):
    published = stored_scores(reference_data)["synflow"].iloc[::40]
    family, data = NasBench201(), Batch((images(1, 32, dtype=torch.float32),))
    ours = np.array([SynFlow().score(family.build(cell_choices(cell)), data, None, 0) for cell in published.index])
    kept = np.isfinite(ours) & (published.to_numpy() > 0)
    assert kept.sum() >= len(published) - 2
    # weights are drawn: no two initializations agree to the digit
    np.testing.assert_allclose(ours[kept], published[kept], atol=0.6)
    assert spearmanr(ours[kept], published[kept])[0] > 0.99


def test_the_zen_score_of_a_linear_map():
    module = nn.Sequential(nn.Flatten(), nn.Linear(300, 500, bias=False), nn.Linear(500, 1))
    wanted = math.log(0.01 * math.sqrt(300 * 500))
    data = Batch((images(16, 10, dtype=torch.float32),))
    assert Zen().score(module, data, None, 0) == pytest.approx(wanted, abs=0.05)
    assert Zen(step=0.1).score(module, data, None, 0) == pytest.approx(wanted + math.log(10), abs=0.05)
    scores = {Zen().score(module, data, None, seed) for seed in range(3)}
    assert len(scores) == 3


def test_the_zen_score_puts_back_what_normalizations_divide_away():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 200, 3), nn.Conv2d(200, 200, 1), nn.AdaptiveAvgPool2d(1))
    normed = nn.Sequential(plain[0], nn.BatchNorm2d(200), plain[1], nn.BatchNorm2d(200), plain[2])
    data = Batch((images(16, 10, dtype=torch.float32),))
    one, two = Zen().score(plain, data, None, 0), Zen().score(normed, data, None, 0)
    assert two == pytest.approx(one, abs=0.1)
    assert one == pytest.approx(math.log(0.01 * math.sqrt(27 * 200 * 200 * 64)), abs=0.1)


def test_a_normalization_of_zeros_does_not_count_for_the_zen_score():
    class WithDeadBranch(nn.Module):
        def __init__(self, dead):
            super().__init__()
            self.body, self.pool = nn.Conv2d(3, 50, 3), nn.AdaptiveAvgPool2d(1)
            self.norm = nn.BatchNorm2d(50) if dead else nn.Identity()

        def forward(self, value):
            value = self.body(value)
            return self.pool(value + self.norm(torch.zeros_like(value)))

    data = Batch((images(4, 10, dtype=torch.float32),))
    scores = [Zen().score(WithDeadBranch(dead), data, None, 0) for dead in (True, False)]
    assert scores[0] == pytest.approx(scores[1])


def test_the_zen_score_looks_before_the_pooling():
    pooled = nn.Sequential(nn.Conv2d(3, 50, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(50, 2))
    flat = nn.Sequential(nn.Conv2d(3, 50, 3), nn.Flatten(), nn.Linear(50 * 64, 2))
    data = Batch((images(16, 10, dtype=torch.float32),))
    assert Zen().score(pooled, data, None, 0) == pytest.approx(Zen().score(flat, data, None, 0), abs=0.1)
    with pytest.raises(UnsupportedModel, match="there is none"):
        Zen().score(nn.Conv2d(3, 2, 3), data, None, 0)


def test_parameters_and_operations_are_counted():
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 36, 5))
    data = Batch((images(7, dtype=torch.float32),))
    assert Params().score(module, data, None, 0) == (27 * 4 + 4) + (144 * 5 + 5)
    assert FLOPs().score(module, data, None, 0) == 2 * (27 * 4 * 36 + 144 * 5)
    module.tied = module[2]
    assert Params().score(module, data, None, 0) == (27 * 4 + 4) + (144 * 5 + 5)
