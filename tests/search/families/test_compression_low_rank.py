"""Factored layers against a naive float64 reference."""

import numpy as np
import pytest
import torch
from bitfront.search.families.compression import compress
from bitfront.search.families.compression.low_rank import factorize, factors, matrix, rank_of, saves
from bitfront.search.families.compression.moments import input_moments, patches
from bitfront.task import Batch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn


def _skewed(rows, width, seed=0):
    """Inputs that vary far more in some directions than in others."""
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=draw) * torch.logspace(0, -2, width)
    return torch.randn(rows, width, generator=draw) @ mix.T


def test_without_data_it_is_the_best_approximation_of_the_matrix():
    weight = torch.randn(12, 20, generator=torch.Generator().manual_seed(0))
    left, right = factors(weight, None, 5)
    values = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    error = float((weight.double() - left @ right).square().sum())
    assert error == pytest.approx(float((values[5:] ** 2).sum()), rel=1e-9)


def test_with_data_the_output_error_is_the_discarded_energy_and_below_the_plain_one():
    torch.manual_seed(0)
    layer, x = nn.Linear(16, 24), _skewed(500, 16)
    second = (x.double().T @ x.double()) / len(x)
    root = np.linalg.cholesky(second.numpy())
    values = np.linalg.svd(matrix(layer).double().numpy() @ root, compute_uv=False)

    def error(made):
        with torch.no_grad():
            return float((made(x) - layer(x)).square().sum(1).mean())

    best = float((values[4:] ** 2).sum())
    assert error(factorize(layer, 4, second)) == pytest.approx(best, rel=0.02)
    assert error(factorize(layer, 4, None)) > 1.5 * best


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.Conv2d(4, 6, (1, 3), padding=(0, 2), dilation=(1, 2), bias=False),
        nn.Conv2d(4, 6, 3, padding="same"),
        nn.Linear(4, 6),
    ],
)
@pytest.mark.parametrize("weighted", [True, False])
def test_at_full_rank_nothing_changes(layer, weighted):
    x = torch.randn(3, 9, 9, 4) if isinstance(layer, nn.Linear) else torch.randn(3, 4, 9, 9)
    second = input_moments(nn.Sequential(layer), [Batch.of(x)], ["0"])["0"].second if weighted else None
    made = factorize(layer, min(matrix(layer).shape), second)
    torch.testing.assert_close(made(x), layer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 5, 3, stride=2, padding=1),
        nn.Conv2d(3, 5, 1, stride=2),
        nn.Conv2d(3, 5, (3, 2), padding="same", dilation=2),
        nn.Conv2d(3, 5, 2, padding="valid"),
        nn.Linear(3, 5),
    ],
)
def test_a_layer_is_its_matrix_times_the_patches(layer):
    x = torch.randn(2, 6, 7, 3) if isinstance(layer, nn.Linear) else torch.randn(2, 3, 6, 7)
    rows = patches(layer, x)
    y = rows @ matrix(layer).T + layer.bias
    expected = layer(x).flatten(0, -2) if isinstance(layer, nn.Linear) else layer(x).movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


def test_moments_over_several_batches():
    x = torch.randn(7, 3).double()
    layer = nn.Sequential(nn.Linear(3, 2, dtype=torch.float64))
    found = input_moments(layer, [Batch.of(x[:4]), Batch.of(x[4:])], ["0"])["0"]
    torch.testing.assert_close(found.mean, x.mean(0))
    torch.testing.assert_close(found.covariance, torch.from_numpy(np.cov(x.numpy().T, bias=True)))


@given(
    share=st.floats(0.01, 0.99),
    outputs=st.integers(3, 200),
    inputs=st.integers(3, 200),
    step=st.sampled_from([1, 8, 16]),
)
def test_a_rank_always_saves_weights(share, outputs, inputs, step):
    rank = rank_of(share, outputs, inputs, step)
    assert 1 <= rank <= min(outputs, inputs)
    assert rank * (outputs + inputs) < outputs * inputs
    if saves(share, outputs, inputs, step):
        assert rank % step == 0 or min(outputs, inputs) < 2 * step


def test_only_shares_that_save_weights_are_offered():
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 192), nn.ReLU(), nn.Linear(192, 2))
    family = compress(model, torch.randn(2, 64), skip=False, width=(), rank=(0.25, 0.5, 0.6, 1.0))
    assert {each.name: each.values for each in family.architecture.dimensions} == {
        "0.rank": (0.25, 1.0),
        "2.rank": (0.25, 0.5, 0.6, 1.0),
        "4.rank": (0.25, 1.0),
    }


def test_a_layer_whose_weight_the_model_reads_itself_stays():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.read = nn.Linear(32, 32), nn.Linear(32, 32)

        def forward(self, x):
            return nn.functional.linear(self.used(x), self.read.weight)

    family = compress(Reads(), torch.randn(2, 32), skip=False, width=())
    assert [each.name for each in family.architecture.dimensions] == ["used.rank"]
    assert "weight" in family.left_out["read.rank"]
