"""Delta loss against its definition; it bounds the first-order change of the loss."""

import runpy
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.evaluators import calibrate
from bitfront.formats import Format
from bitfront.proxies.delta_loss import DeltaLoss
from torch import nn
from torch.nn import functional

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))


def test_equals_absolute_gradients_times_errors():
    task, space, calibration = CASES["images"]("loss", formats=("w4", "w4a8"))
    found = bf.sensitivity(task, space, "delta_loss", calibration=calibration)
    model, batch = CASES["doubled"](task.model), task.calibration[0]
    each = np.zeros((5, 2, 2))
    for sample in range(5):
        x = batch.inputs[0][sample : sample + 1].double().requires_grad_(True)
        hidden = functional.relu(model.conv(x)).flatten(1)
        loss = functional.cross_entropy(model.fc(hidden), batch.targets[sample : sample + 1])
        wanted = [model.conv.weight, x, model.fc.weight, hidden]
        gradients = torch.autograd.grad(loss, wanted)
        for row, (site, value) in enumerate(zip(space.sites, (x, hidden), strict=True)):
            for column, name in enumerate(space.formats):
                error = CASES["weight_error"](task, space, calibration, site, name)
                each[sample, row, column] = float((gradients[2 * row] * error).abs().sum())
                target = Format.parse(name).activation
                if target is not None:
                    error = calibration.activation(site.name, target)(value.detach().float()).double() - value.detach()
                    each[sample, row, column] += float((gradients[2 * row + 1] * error).abs().sum())
    np.testing.assert_allclose(found.values, each.mean(0), rtol=1e-3)
    np.testing.assert_allclose(found.error, each.std(0, ddof=1) / 5**0.5, rtol=1e-3)


def test_sequences_average_over_the_positions_that_count():
    task, space, calibration = CASES["tokens"]("perplexity", formats=("w3",))
    found = bf.sensitivity(task, space, "delta_loss", calibration=calibration)
    batch, model = task.calibration[0], CASES["doubled"](task.model)

    def loss(output, sample):
        return functional.cross_entropy(output.flatten(0, -2), batch.targets[sample : sample + 1].flatten())

    gradients = CASES["gradients"](model, batch.inputs[0], loss)
    for row, site in enumerate(space.sites):
        error = CASES["weight_error"](task, space, calibration, site, "w3")
        wanted = float((gradients[site.parameter] * error).abs().flatten(1).sum(1).mean())
        assert found.values[row, 0] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_bounds_the_first_order_change_of_a_linear_loss(seed):
    torch.manual_seed(seed)
    model = nn.Linear(5, 3, bias=False)
    data = [(torch.randn(8, 5), torch.randn(8, 3)) for _ in range(3)]

    def linear(output, targets):
        return (output * targets).sum(-1).mean()

    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality="loss", loss=linear)
    space = bf.SearchSpace.from_model(model, data[0], formats=["w2", "w4"])
    calibration = calibrate(task, space)
    found = bf.sensitivity(task, space, "delta_loss", calibration=calibration)
    for column, name in enumerate(space.formats):
        error = CASES["weight_error"](task, space, calibration, space.sites[0], name).float()
        change = abs(float(linear(data[0][0] @ error.T, data[0][1])))
        assert found.values[0, column] >= change * (1 - 1e-5)
        assert found.values[0, column] > 0


def test_distances_to_the_own_outputs_take_random_gradients():
    task, space, calibration = CASES["images"]("kl", formats=("w4",))
    found = [bf.sensitivity(task, space, "delta_loss", calibration=calibration, seed=seed).values for seed in (0, 1)]
    assert np.all(found[0] > 0)
    assert not np.array_equal(*found)
    labelled = DeltaLoss(labels="data").score(task, space, calibration, seed=0, advance=None)
    objective, *_ = CASES["images"]("loss", formats=("w4",))
    wanted = bf.sensitivity(objective, space, "delta_loss", calibration=calibration)
    assert np.array_equal(labelled.values, wanted.values)
    assert vars(DeltaLoss(labels="data")) == {"samples": 64, "labels": "data"}
