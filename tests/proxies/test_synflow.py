"""Synaptic flow against closed forms."""

import runpy
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import NonFiniteOutput, UnsupportedModel
from bitfront.formats import Format
from bitfront.proxies.synflow import SynFlow, flow
from torch import nn

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
tokens, fingerprint, unchanged = CASES["tokens"], CASES["fingerprint"], CASES["unchanged"]


def chain(*layers):
    torch.manual_seed(0)
    model = nn.Sequential(*layers)
    data = [torch.randn(4, 3) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality="relative_error")
    return task, bf.SearchSpace.from_model(model, data[0], formats=["w2", "fp32"])


def scored(task, space):
    return bf.sensitivity(task, space, "synflow")


def test_the_flow_of_a_chain_is_a_product_of_matrices_and_is_conserved():
    first, second = nn.Linear(3, 5, bias=False), nn.Linear(5, 2, bias=False)
    task, space = chain(first, nn.ReLU(), second)
    one, two = (layer.weight.detach().double().abs() for layer in (first, second))
    slopes = [torch.outer(two.sum(0), torch.ones(3).double()), torch.outer(torch.ones(2).double(), one.sum(1))]
    found = flow(task.model, task.calibration[0], [site.parameter for site in space.sites])
    for given, wanted in zip(found, slopes, strict=True):
        torch.testing.assert_close(given, wanted)
    totals = [float((weight * slope).sum()) for weight, slope in zip((one, two), found, strict=True)]
    assert totals[0] == pytest.approx(totals[1])  # why the logarithm is needed
    importance = np.array([float((w * g.log1p()).sum()) for w, g in zip((one, two), slopes, strict=True)])
    bits = np.array([Format.parse(name).weight_bits for name in space.formats])
    wanted = (importance / importance.sum())[:, None] * (1 - bits / 32)
    np.testing.assert_allclose(scored(task, space).values, wanted)


def test_normalizations_are_skipped():
    class HouseRMSNorm(nn.Module):
        def forward(self, x):
            return x / 1000

    layers = [nn.Linear(3, 5), nn.Linear(5, 2)]
    plain = scored(*chain(*layers))
    with_norms = scored(*chain(layers[0], nn.BatchNorm1d(5), nn.LayerNorm(5), HouseRMSNorm(), layers[1]))
    np.testing.assert_allclose(with_norms.values, plain.values)


def test_neither_data_nor_signs_matter():
    layers = [nn.Linear(3, 5), nn.Linear(5, 2)]
    task, space = chain(*layers)
    before = scored(task, space).values
    task.calibration[0].inputs[0].mul_(-7)
    with torch.no_grad():
        layers[0].weight[::2] *= -1
    calibration = bf.evaluators.calibrate(task, space)
    np.testing.assert_array_equal(SynFlow().score(task, space, calibration, seed=3, advance=None).values, before)


def test_indices_and_tied_weights():
    task, space, calibration = tokens("kl")
    before = fingerprint(task.model)
    found = SynFlow().score(task, space, calibration, seed=0, advance=None)
    assert np.all(found.values > 0)
    assert unchanged(task.model, before)
    assert all(not module._forward_hooks for module in task.model.modules())


def test_deep_networks_do_not_overflow_and_what_does_is_named():
    layers = [nn.Linear(3, 3, bias=False) for _ in range(60)]
    task, space = chain(*layers)
    with torch.no_grad():
        for layer in layers:
            layer.weight.fill_(100.0)  # 300 ** 60 is beyond float32
    assert np.isfinite(scored(task, space).values).all()
    with torch.no_grad():
        for layer in layers:
            layer.weight.fill_(1e7)
    with pytest.raises(NonFiniteOutput, match="the flow at site 0 overflows"):
        scored(task, space)


def test_a_model_that_insists_on_float32_is_refused_with_advice():
    class Insists(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            return nn.functional.linear(x.float(), self.fc.weight)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(3, 3), Insists()

        def forward(self, x):
            return self.head(self.inner(x)) + self.head.fc(self.inner(x))

    task, space = chain(Model())
    with pytest.raises(UnsupportedModel, match=r"magnitudes in float64: .* choose a proxy without gradients"):
        scored(task, space)
