"""Entropy lost by rounding against numpy histograms."""

import runpy
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput, NonFiniteOutput
from bitfront.evaluators import calibrate
from bitfront.formats import Format
from bitfront.proxies.entropy import Entropy, entropy
from torch import nn

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
images = CASES["images"]


def naive(values, bins, low, high):
    counts, _ = np.histogram(values, bins, (low, high))
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def test_entropy_of_known_histograms():
    assert entropy(torch.tensor([5, 5, 0, 5, 5])) == pytest.approx(2)
    assert entropy(torch.tensor([0, 7])) == 0
    assert entropy(torch.zeros(3)) == 0


def test_activations_lose_what_their_histogram_loses():
    task, space, calibration = images("kl", ("w8", "w8a3", "fp32"))
    found = Entropy(batch=2, bins=64).score(task, space, calibration, seed=0, advance=None)
    value = task.calibration[0].inputs[0]
    rounded = calibration.activation("conv", Format.parse("w8a3").activation)(value)
    low, high = float(value.min()), float(value.max())
    wanted = naive(value.numpy(), 64, low, high) - naive(rounded.clamp(low, high).numpy(), 64, low, high)
    difference = found.values[0, space.formats.index("w8a3")] - found.values[0, space.formats.index("w8")]
    assert wanted > 1
    assert difference == pytest.approx(wanted, abs=0.02)  # bin edges in float32
    assert np.all(found.values[:, space.formats.index("fp32")] == 0)
    assert not found.additive


def test_weights_lose_what_their_codes_cannot_tell_apart():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 16, bias=False))
    data = [torch.randn(2, 256) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality="relative_error")
    space = bf.SearchSpace.from_model(model, data[0], formats=["w2", "w4", "w8", "nf4", "bf16"])
    calibration = calibrate(task, space)
    found = Entropy(bins=512).score(task, space, calibration, seed=0, advance=None)
    weight = model[0].weight.detach().double().numpy()
    whole = naive(weight / np.abs(weight).max(1, keepdims=True), 512, -1, 1)
    column = space.formats.index
    codes = calibration.quantize(space.sites[0], model[0].weight, Format.parse("w2").weight).codes.numpy()
    _, counts = np.unique(codes, return_counts=True)
    p = counts / counts.sum()
    assert len(p) == 4
    assert found.values[0, column("w2")] == pytest.approx(whole + (p * np.log2(p)).sum(), abs=1e-3)
    assert found.values[0, column("w2")] > found.values[0, column("w4")] > found.values[0, column("w8")]
    assert 0 < found.values[0, column("nf4")] < found.values[0, column("w2")]
    assert found.values[0, column("bf16")] == 0


def test_faulty_settings_and_activations_are_refused():
    task, space, calibration = images("kl", ("w8a8",))
    with pytest.raises(InvalidInput, match="at least 2 bins, got 1"):
        Entropy(bins=1).score(task, space, calibration, seed=0, advance=None)
    with torch.no_grad():
        task.model.conv.bias[0] = torch.inf
    with pytest.raises(NonFiniteOutput, match="what enters fc is NaN or infinite"):
        Entropy().score(task, space, calibration, seed=0, advance=None)
