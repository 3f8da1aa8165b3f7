"""Which configurations are exported to be timed."""

import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.hw_models import site_kernel
from bitfront.hw_models.network import mixtures, uniform_designs
from bitfront.space import SearchSpace
from torch import nn


@pytest.fixture(scope="module")
def space():
    layers = [nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)]
    formats = ["w2", "w4", "w8a8", "w4a8", "bf16", "fp32"]
    return SearchSpace.from_model(nn.Sequential(*layers), torch.zeros(1, 3, 4, 4), formats, ties=[["0", "4"]])


def test_one_uniform_configuration_for_each_set_of_kernels(space):
    found = uniform_designs(space)
    kernels = [tuple(site_kernel(site, chosen[site.name]) for site in space.sites) for chosen in found.values()]
    assert len(set(kernels)) == len(kernels) == 3  # float, bf16, int8
    assert found["fp32"] == space.uniform("fp32")


def test_mixtures_fit_the_space_and_repeat(space):
    found = mixtures(space, 20, seed=3)
    assert found == mixtures(space, 20, seed=3)
    assert found != mixtures(space, 20, seed=4)
    assert len(set(found.values())) == 20
    for configuration in found.values():
        space.choice(configuration)  # offered everywhere, ties kept


def test_proportions_differ_between_mixtures():
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(40)])
    space = SearchSpace.from_model(model, torch.zeros(1, 4), formats=["w4", "w8a8"])
    shares = [list(chosen.values()).count("w4") / 40 for chosen in mixtures(space, 30).values()]
    assert min(shares) < 0.2
    assert max(shares) > 0.8


def test_too_many_mixtures(space):
    small = SearchSpace.from_model(nn.Linear(4, 4), torch.zeros(1, 4), formats=["w4", "w8a8"])
    with pytest.raises(InvalidInput, match="gave only 2"):
        mixtures(small, 3)
