"""NASWOT, linear regions, and the codes that they read."""

import math

import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.proxies.architecture.activation_codes import ActivationCodes, agreements
from bitfront.proxies.architecture.linear_regions import LinearRegions
from bitfront.proxies.architecture.nwot import NWOT
from bitfront.task import Batch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

RECTIFIERS = (
    F.relu, F.relu6, F.leaky_relu, F.elu, F.hardswish, F.silu, F.gelu, F.mish, torch.relu, torch.relu_,
)  # fmt: skip


def layers(width=9, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 7), nn.ReLU6(), nn.Linear(7, 2)).double()


def inputs(samples=6, seed=1):
    return torch.randn(samples, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("rectifier", RECTIFIERS)
def test_every_rectifier_is_seen_once(rectifier):
    value, seen = torch.randn(4, 3, 2), []
    before = value.clone()
    with ActivationCodes(seen.append) as codes:
        rectifier(value)
    assert codes.calls == 1
    assert torch.equal(seen[0], (before > 0).flatten(1))


@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 99))
def test_agreements_are_counted(samples, units, seed):
    code = torch.rand(samples, units, generator=torch.Generator().manual_seed(seed)) > 0.5
    wanted = [[int((one == two).sum()) for two in code] for one in code]
    assert agreements(code).tolist() == wanted


def test_the_score_is_the_log_determinant_of_agreements():
    module, value = layers(), inputs()
    first = module[0](value)
    second = module[2](first.clamp_min(0))
    codes = (torch.cat([first, second], 1) > 0).numpy()
    distances = np.array([[(one != two).sum() for two in codes] for one in codes])
    wanted = math.log(np.linalg.det(codes.shape[1] - distances))
    assert NWOT().score(module, Batch((value,)), None, 0) == pytest.approx(wanted)


@settings(max_examples=10)
@given(st.permutations(range(6)))
def test_the_order_of_the_samples_does_not_matter(order):
    module, value = layers(), inputs()
    wanted = NWOT().score(module, Batch((value,)), None, 0)
    assert NWOT().score(module, Batch((value[list(order)],)), None, 0) == pytest.approx(wanted)


def test_two_equal_samples_are_the_worst():
    value = inputs()
    assert NWOT().score(layers(), Batch((torch.cat([value, value[:1]]),)), None, 0) == -math.inf


def test_normalizations_use_the_batch():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU()).double().eval()
    nn.init.constant_(module[0].bias, 50.0)  # without the batch's mean every unit would be on
    assert NWOT().score(module, Batch((inputs(),)), None, 0) > -math.inf


def test_one_hidden_layer_has_a_region_for_every_unit_that_switches():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 50), nn.ReLU(), nn.Linear(50, 2)).double()
    value = inputs(2)
    before, after = module[0](value) > 0
    wanted = math.log1p(int((before != after).sum()))
    assert wanted > 1
    assert LinearRegions(segments=3, points=2).score(module, Batch((value,)), None, 0) == pytest.approx(wanted)
    assert LinearRegions(segments=1, points=20).score(module, Batch((value,)), None, 5) == pytest.approx(wanted)


def test_regions_of_a_deep_network_are_found_by_looking_closely():
    torch.manual_seed(0)
    hidden = [each for _ in range(3) for each in (nn.Linear(8, 8), nn.ReLU())]
    module = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), *hidden, nn.Linear(8, 2)).double()
    value = inputs(2)
    path = value[:1] + torch.linspace(0, 1, 100_001, dtype=torch.float64)[:, None] * (value[1:] - value[:1])
    slopes = (module(path)[1:, 0] - module(path)[:-1, 0]).diff().abs()
    kinks = slopes > 1e-9
    exact = int((kinks[1:] & ~kinks[:-1]).sum()) + int(kinks[0])  # a kink between two points shows once or twice
    found = LinearRegions(segments=1, points=2000).score(module, Batch((value,)), None, 0)
    assert found == pytest.approx(math.log1p(exact))


def test_a_wider_network_has_more_regions():
    scores = [LinearRegions().score(layers(width), Batch((inputs(16),)), None, 0) for width in (2, 16, 128)]
    assert scores == sorted(scores)
    assert len(set(scores)) == 3


def test_one_sample_has_no_segment():
    with pytest.raises(InvalidInput, match="two or more"):
        LinearRegions().score(layers(), Batch((inputs(1),)), None, 0)
