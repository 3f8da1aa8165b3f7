"""Noise-to-signal ratios against their definition in decibels."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from bitfront.formats import Format
from bitfront.proxies.sqnr import SQNR

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
images, weight_error = CASES["images"], CASES["weight_error"]


def decibels(signal, noise):
    return 10 * np.log10(float(signal.double().square().sum()) / float(noise.double().square().sum()))


def test_it_is_ten_to_the_negative_decibels_of_weights_and_activations():
    task, space, calibration = images("kl")
    found = SQNR(batch=2).score(task, space, calibration, seed=0, advance=None)
    images_, _ = task.calibration[0].inputs[0], None
    with torch.no_grad():
        entering = [images_, torch.relu(task.model.conv(images_)).flatten(1)]
    for row, (site, value) in enumerate(zip(space.sites, entering, strict=True)):
        weight = task.model.get_parameter(site.parameter).detach()
        wanted = 10 ** (-decibels(weight, weight_error(task, space, calibration, site, "w4")) / 10)
        assert found.values[row, space.formats.index("w4")] == pytest.approx(wanted, rel=1e-5)
        rounded = calibration.activation(site.modules[0], Format.parse("w4a8").activation)(value)
        wanted += 10 ** (-decibels(value, rounded - value) / 10)
        assert found.values[row, space.formats.index("w4a8")] == pytest.approx(wanted, rel=1e-5)
    assert np.all(found.values[:, space.formats.index("fp32")] == 0)
    assert found.forward_passes == 5


def test_the_data_is_left_alone_where_no_format_rounds_activations():
    task, space, calibration = images("kl", ("w3", "w4"))
    found = SQNR().score(task, space, calibration, seed=0, advance=None)
    assert found.forward_passes == 0
    assert np.all(found.values[:, 0] > found.values[:, 1])
    with torch.no_grad():
        task.model.fc.weight *= 1000  # the ratio does not change with the unit
        task.model.fc.weight /= 1000
    again = SQNR().score(task, space, calibration, seed=1, advance=None)
    np.testing.assert_allclose(again.values, found.values, rtol=1e-3)


def test_a_weight_of_zeros_has_no_noise():
    task, space, calibration = images("kl", ("w4",))
    with torch.no_grad():
        task.model.fc.weight.zero_()
    assert SQNR().score(task, space, calibration, seed=0, advance=None).values[1, 0] == 0
