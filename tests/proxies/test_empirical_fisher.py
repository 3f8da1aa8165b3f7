"""The empirical Fisher against per-sample gradients in float64."""

import runpy
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.formats import Format
from bitfront.proxies.empirical_fisher import EmpiricalFisher
from torch.nn import functional

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))


def naive(task, space, calibration, positions=1):
    """Half the sum of squared gradient times squared error, for every sample [samples, sites, formats]."""
    batch = task.calibration[0]
    model = CASES["doubled"](task.model)
    inputs = batch.inputs[0].double() if batch.inputs[0].is_floating_point() else batch.inputs[0]

    def loss(output, sample):
        return functional.cross_entropy(output.flatten(0, -2), batch.targets[sample : sample + 1].flatten())

    found = CASES["gradients"](model, inputs, loss, positions)
    values = np.zeros((len(inputs), len(space.sites), len(space.formats)))
    for row, site in enumerate(space.sites):
        for column, name in enumerate(space.formats):
            error = CASES["weight_error"](task, space, calibration, site, name)
            terms = (found[site.parameter] * error).square().flatten(1).sum(1)
            values[:, row, column] = 0.5 * terms.numpy()
    return values


def test_equals_squared_gradients_of_every_sample():
    task, space, calibration = CASES["images"]("loss", formats=("w3", "w4", "fp32"))
    scores = bf.sensitivity(task, space, "empirical_fisher", calibration=calibration)
    wanted = naive(task, space, calibration)
    np.testing.assert_allclose(scores.values, wanted.mean(0), rtol=1e-4)
    np.testing.assert_allclose(scores.error, wanted.std(0, ddof=1) / 5**0.5, rtol=1e-4)


def test_square_of_the_batch_gradient_is_another_quantity():
    task, space, calibration = CASES["images"]("loss", formats=("w4",))
    model = CASES["doubled"](task.model)
    batch = task.calibration[0]
    loss = functional.cross_entropy(model(batch.inputs[0].double()), batch.targets)
    wrong = [
        0.5 * float((torch.autograd.grad(loss, model.get_parameter(site.parameter), retain_graph=True)[0]
                     * CASES["weight_error"](task, space, calibration, site, "w4")).square().sum())
        for site in space.sites
    ]  # fmt: skip
    right = bf.sensitivity(task, space, "empirical_fisher", calibration=calibration).values[:, 0]
    assert np.all(right > 1.5 * np.array(wrong))


def test_positions_that_count_scale_a_sequence_and_tied_weights_add_up():
    task, space, calibration = CASES["tokens"]("perplexity")
    assert [len(site.modules) for site in space.sites if "embed" in site.parameter] == [2]
    scores = bf.sensitivity(task, space, "empirical_fisher", calibration=calibration)
    wanted = naive(task, space, calibration, positions=[5, 6, 5, 6]).mean(0)
    np.testing.assert_allclose(scores.values, wanted, rtol=1e-4)


def test_rounded_inputs_are_added():
    task, space, calibration = CASES["images"]("loss", formats=("w4", "w4a8"))
    table = bf.sensitivity(task, space, "empirical_fisher", calibration=calibration).table
    model, batch = CASES["doubled"](task.model), task.calibration[0]
    total = 0.0
    for sample in range(5):
        x = batch.inputs[0][sample : sample + 1].double()
        hidden = torch.relu(model.conv(x)).flatten(1).detach().requires_grad_(True)
        loss = functional.cross_entropy(model.fc(hidden), batch.targets[sample : sample + 1])
        (gradient,) = torch.autograd.grad(loss, hidden)
        rounding = calibration.activation("fc", Format.parse("w4a8").activation)
        error = rounding(hidden.detach().float()).double() - hidden.detach()
        total += 0.5 * float((gradient * error).square().sum()) / 5
    assert table.loc["fc", "w4a8"] - table.loc["fc", "w4"] == pytest.approx(total, rel=1e-3)


def test_labels_are_used_where_the_quality_is_a_divergence():
    task, space, calibration = CASES["images"]("kl", formats=("w4",))
    labelled, *_ = CASES["images"]("loss", formats=("w4",))
    found = bf.sensitivity(task, space, "empirical_fisher", calibration=calibration)
    assert np.array_equal(found.values, bf.sensitivity(labelled, space, "empirical_fisher").values)


def test_data_without_labels_is_refused():
    task, space, calibration = CASES["images"]("kl", labelled=False)
    with pytest.raises(InvalidInput, match="choose sampled_fisher or gauss_newton_diagonal"):
        bf.sensitivity(task, space, "empirical_fisher", calibration=calibration)


def test_samples_bound_the_data():
    task, space, calibration = CASES["images"]("loss", formats=("w4",))
    found = EmpiricalFisher(samples=2).score(task, space, calibration, seed=0, advance=None)
    np.testing.assert_allclose(found.values, naive(task, space, calibration)[:2].mean(0), rtol=1e-4)
    assert found.forward_passes == 2


def test_a_loss_of_the_users_own_needs_no_classes():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    data = [(torch.randn(4, 3), torch.randn(4, 2)) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality="loss", loss=functional.mse_loss)
    space = bf.SearchSpace.from_model(model, data[0], formats=["w4"])
    scores = bf.sensitivity(task, space, "empirical_fisher")
    x, y = (tensor.double() for tensor in (data[0][0], data[0][1]))
    residual = (x @ model.weight.double().T + model.bias.double() - y).detach()
    gradients = residual[:, :, None] * x[:, None]  # of the mean over two outputs
    from bitfront.evaluators import calibrate

    error = CASES["weight_error"](task, space, calibrate(task, space), space.sites[0], "w4")
    wanted = 0.5 * float((gradients * error).square().sum((1, 2)).mean())
    assert scores.values[0, 0] == pytest.approx(wanted, rel=1e-4)
