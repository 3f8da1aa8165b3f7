"""Connection sensitivity against gradients in float64."""

import runpy
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput, UnsupportedModel
from bitfront.formats import Format
from bitfront.proxies.snip import SNIP
from torch import nn
from torch.nn import functional

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
images, tokens, doubled, gradients = CASES["images"], CASES["tokens"], CASES["doubled"], CASES["gradients"]


def table(space, importance):
    bits = np.array([Format.parse(name).weight_bits for name in space.formats])
    return (importance / importance.sum())[:, None] * (1 - bits / 32)


def test_it_is_weight_times_gradient_of_every_sample():
    task, space, calibration = images("loss", ("w2", "w4", "fp32"))
    batch = task.calibration[0]
    model = doubled(task.model)

    def loss(output, sample):
        return functional.cross_entropy(output, batch.targets[sample : sample + 1])

    each = gradients(model, batch.inputs[0].double(), loss)
    draws = np.stack(
        [
            (each[site.parameter] * model.get_parameter(site.parameter)).abs().flatten(1).sum(1).detach().numpy()
            for site in space.sites
        ],
        axis=1,
    )
    found = SNIP().score(task, space, calibration, seed=0, advance=None)
    np.testing.assert_allclose(found.values, table(space, draws.mean(0)), rtol=1e-4)
    relative = draws.std(0, ddof=1) / np.sqrt(5) / draws.mean(0)
    np.testing.assert_allclose(found.error, found.values * relative[:, None], rtol=1e-3)
    assert (found.forward_passes, found.backward_passes) == (5, 5)


def test_padded_positions_do_not_count():
    task, space, calibration = tokens("loss")
    found = SNIP().score(task, space, calibration, seed=0, advance=None)
    targets = task.calibration[0].targets
    targets[::2, -1] = 3  # what was left out counts now
    other = SNIP().score(task, space, calibration, seed=0, advance=None)
    assert not np.allclose(found.values, other.values, rtol=1e-3)


@pytest.mark.parametrize("quality", ["kl", "relative_error", "cosine"])
def test_distances_to_the_own_outputs_have_random_gradients(quality):
    task, space, calibration = images(quality, labelled=False)
    first, again, other = (SNIP().score(task, space, calibration, seed=seed, advance=None) for seed in (0, 0, 1))
    assert np.array_equal(first.values, again.values)
    assert not np.array_equal(first.values, other.values)
    assert first.values[:, 0].min() > 0
    with pytest.raises(InvalidInput, match="labels='data' needs calibration batches"):
        SNIP(labels="data").score(task, space, calibration, seed=0, advance=None)


def test_a_model_without_derivative_is_told_which_proxies_need_none():
    class Stepped(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(x).detach()

    data = [torch.randn(3, 4) for _ in range(3)]
    task = bf.Task(Stepped(), calibration=data[:1], validation=data[1:], quality="kl")
    space = bf.SearchSpace.from_model(task.model, data[0], formats=["w4"])
    with pytest.raises(UnsupportedModel, match=r"choose a proxy without gradients: .*sqnr"):
        bf.sensitivity(task, space, "snip")
