"""Operators outside the sites: which steps count, their bytes by hand, batch."""

import numpy as np
import pytest
import torch
from bitfront.hw_models.gpu import ElementwiseLaw
from bitfront.hw_models.gpu.operators import OPERATOR_SIGMA, bytes_outside, operators
from bitfront.space import SearchSpace
from torch import nn

LAW = ElementwiseLaw(0.002, 5e9, 3e7, 2.5e9, 0.1, "a test")


class Block(nn.Module):
    """Layer norm (a kernel of its own), linear with ReLU (fused: none), softmax (one)."""

    def __init__(self):
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(16), nn.Linear(16, 32)

    def forward(self, x):
        return torch.softmax(torch.relu(self.layer(self.norm(x))), -1)


def traced(samples=2):
    return SearchSpace.from_model(Block(), torch.zeros(samples, 5, 16), formats=["bf16"])


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_bytes_by_hand(batch):
    space = traced()
    moved = sorted(bytes_outside(space.activations, {"layer"}, batch).values())
    tokens = batch * 5
    assert moved == pytest.approx(sorted([2 * tokens * (16 + 16), 2 * tokens * (32 + 32)]))


def test_their_time_is_the_law_of_their_bytes():
    found = operators(traced(), LAW, batch=3)
    expected = LAW.ms(np.array([2.0 * 15 * 32, 2.0 * 15 * 64])).sum()
    assert (found.kernels, found.ms, found.sigma) == (
        2,
        pytest.approx(expected),
        pytest.approx(OPERATOR_SIGMA * expected),
    )


def test_excluded_layers_count_as_operators():
    space = SearchSpace.from_model(
        nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 4)), torch.zeros(1, 16), formats=["bf16"], exclude=["1"]
    )
    assert [site.name for site in space.sites] == ["0"]
    assert operators(space, LAW).kernels == 1


def test_a_space_that_was_not_traced_says_so():
    space = traced()
    assert operators(SearchSpace(space.sites, space.formats), LAW) is None


def test_a_model_of_sites_alone_has_none():
    space = SearchSpace.from_model(nn.Linear(16, 8), torch.zeros(1, 16), formats=["bf16"])
    assert operators(space, LAW).kernels == 0
    assert operators(space, LAW).ms == 0.0
