"""Traces over activations against closed forms."""

import runpy
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput, UnsupportedModel
from bitfront.formats import Format
from bitfront.proxies.activation_trace import ActivationTrace

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
images = CASES["images"]


def last_layer(task, calibration, quality):
    """The score of the last layer: its Hessian is W^T B W for every sample, with B that of the objective."""
    value = task.calibration[0].inputs[0]
    with torch.no_grad():
        hidden = torch.relu(task.model.conv(value)).flatten(1)
        output = task.model.fc(hidden).double()
    weight = task.model.fc.weight.detach().double()
    traces = []
    for y in output:
        p = y.softmax(0)
        curvature = torch.eye(4).double() / y.square().sum()
        if quality != "relative_error":
            curvature = p.diag() - torch.outer(p, p)
        traces.append(float((weight.T @ curvature @ weight).trace()))
    rounded = calibration.activation("fc", Format.parse("w4a8").activation)(hidden)
    power = float((rounded - hidden).double().square().sum(1).mean()) / hidden.shape[1]
    return 0.5 * np.mean(traces) * power


@pytest.mark.parametrize("quality", ["loss", "kl", "relative_error"])
def test_the_last_layer_has_a_closed_form(quality):
    task, space, calibration = images(quality, ("w4", "w4a8", "fp32"))
    found = ActivationTrace(probes=200).score(task, space, calibration, seed=0, advance=None)
    row, column = space.names.index("fc"), space.formats.index("w4a8")
    wanted = last_layer(task, calibration, quality)
    assert found.values[row, column] == pytest.approx(wanted, rel=0.1)
    assert found.values[0, column] > 0
    assert np.all(found.values[:, [space.formats.index("w4"), space.formats.index("fp32")]] == 0)
    assert found.backward_passes == 5 * (201 if quality == "loss" else 200)


def test_more_probes_make_the_standard_error_smaller_only_down_to_that_of_the_samples():
    task, space, calibration = images("relative_error", ("w4a8",), samples=8)
    few, many = (ActivationTrace(probes=n).score(task, space, calibration, seed=0, advance=None) for n in (1, 100))
    assert np.all(many.error[0] < few.error[0])
    assert np.all(many.error > 0)


def test_the_two_estimators_agree_where_both_hold():
    """For cross-entropy the curvature in the logits is the same as for the divergence; the last layer is linear."""
    task, space, calibration = images("loss", ("w4a8",))
    hutchinson = ActivationTrace(probes=300).score(task, space, calibration, seed=0, advance=None)
    task.quality = "kl"
    root = ActivationTrace(probes=300).score(task, space, calibration, seed=0, advance=None)
    assert hutchinson.values[1, 0] == pytest.approx(root.values[1, 0], rel=0.1)


def test_the_seed_decides():
    task, space, calibration = images("loss", ("w4a8",))
    first, again, other = (
        ActivationTrace().score(task, space, calibration, seed=seed, advance=None) for seed in (0, 0, 1)
    )
    assert np.array_equal(first.values, again.values)
    assert not np.array_equal(first.values, other.values)


def test_a_space_that_rounds_no_activations_is_refused():
    task, space, calibration = images("loss", ("w4", "w8"))
    with pytest.raises(InvalidInput, match="offer such as w8a8, or choose hessian_trace"):
        ActivationTrace().score(task, space, calibration, seed=0, advance=None)


@pytest.mark.parametrize("quality", ["loss", "relative_error"])
def test_a_layer_that_no_gradient_reaches_is_refused(quality):
    task, space, calibration = images(quality, ("w4", "w4a8"))
    plain = task.model.relu

    class Cut(torch.nn.Module):
        def forward(self, x):
            return plain(x).detach()

    task.model.relu = Cut()
    with pytest.raises(UnsupportedModel, match="no gradient reaches site conv"):
        ActivationTrace(probes=2).score(task, space, calibration, seed=0, advance=None)


def test_half_precision_is_close_to_single():
    task, space, calibration = images("loss", ("w4a8",))
    wanted = ActivationTrace(probes=50).score(task, space, calibration, seed=0, advance=None)
    model = task.model.bfloat16()
    data = [(batch.inputs[0].bfloat16(), batch.targets) for batch in (*task.calibration, *task.validation)]
    half = bf.Task(model, calibration=data[:1], validation=[*data[1:], data[0]], quality="loss")
    found = ActivationTrace(probes=50).score(half, space, calibration, seed=0, advance=None)
    np.testing.assert_allclose(found.values, wanted.values, rtol=0.2)
