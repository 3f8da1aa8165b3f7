"""Kurtosis against scipy and distributions whose moments are known."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from bitfront.proxies.kurtosis import Kurtosis, kurtosis

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
images = CASES["images"]


def test_it_is_the_fourth_standardized_moment():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(20, 30, generator=generator) ** 3
    assert kurtosis(weight) == pytest.approx(scipy.stats.kurtosis(weight.flatten().double().numpy(), fisher=False))
    assert kurtosis(torch.linspace(-1, 1, 10001)) == pytest.approx(1.8, rel=1e-3)
    assert kurtosis(torch.tensor([-1.0, 1.0])) == pytest.approx(1)


def test_it_does_not_depend_on_the_scale():
    weight = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert kurtosis(weight * 1e-100) == pytest.approx(kurtosis(weight))
    assert kurtosis(torch.ones(5)) == 0


def test_layers_are_served_in_the_order_of_their_kurtosis():
    task, space, calibration = images("kl", ("w2", "w8"))
    with torch.no_grad():
        task.model.conv.weight.flatten()[0] = 20
    found = Kurtosis().score(task, space, calibration, seed=0, advance=None)
    gain = (found.values[:, 0] - found.values[:, 1]) / (6 * np.array([27, 48]))
    wanted = [kurtosis(task.model.conv.weight.detach()), kurtosis(task.model.fc.weight.detach())]
    assert wanted[0] > 5 * wanted[1]
    np.testing.assert_allclose(gain[0] / gain[1], wanted[0] / wanted[1])
