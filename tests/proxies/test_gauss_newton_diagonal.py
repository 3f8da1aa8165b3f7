"""The Gauss-Newton diagonal against exact Hessians, and against the loss itself where that is a diagonal quadratic."""

import runpy
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.evaluators import calibrate, objective, output_tensor
from bitfront.evaluators.quantized_model import QuantizedModel
from bitfront.proxies.gauss_newton_diagonal import GaussNewtonDiagonal
from torch import nn

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))


def exact(task, space, calibration):
    """Half the diagonal of the mean over samples of each objective's Hessian, times squared errors."""
    model = CASES["doubled"](task.model)
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    batch = task.calibration[0]
    values = np.zeros((len(space.sites), len(space.formats)))
    for row, site in enumerate(space.sites):
        shape = parameters[site.parameter].shape

        def loss(flat, sample, site=site, shape=shape):
            x = batch.inputs[0][sample : sample + 1].double()
            changed = {**parameters, site.parameter: flat.reshape(shape)}
            reference = model(x).detach()
            targets = None if batch.targets is None else batch.targets[sample : sample + 1]
            return objective(task, torch.func.functional_call(model, changed, x), reference, targets)

        flat = parameters[site.parameter].detach().flatten()
        diagonal = torch.stack(
            [torch.func.hessian(loss)(flat, sample).diagonal() for sample in range(len(batch))]
        ).mean(0)
        for column, name in enumerate(space.formats):
            error = CASES["weight_error"](task, space, calibration, site, name).flatten()
            values[row, column] = 0.5 * float((diagonal * error.square()).sum())
    return values


@pytest.mark.parametrize("quality", ["kl", "relative_error", "cosine"])
def test_is_unbiased_for_the_diagonal_of_the_hessian(quality):
    task, space, calibration = CASES["images"](quality, formats=("w3", "w4"))
    wanted = exact(task, space, calibration)
    each = np.stack([
        GaussNewtonDiagonal(probes=40).score(task, space, calibration, seed=seed, advance=None).values
        for seed in range(15)
    ])  # fmt: skip
    error = each.std(0, ddof=1) / len(each) ** 0.5
    assert np.all(np.abs(each.mean(0) - wanted) < 4 * error + 1e-4 * wanted)
    assert np.all(error < 0.05 * wanted)


def test_cross_entropy_agrees_with_the_sampled_fisher():
    task, space, calibration = CASES["images"]("loss", formats=("w4",))
    means, errors = [], []
    for make in (GaussNewtonDiagonal, bf.proxies.proxies()["sampled_fisher"]):
        each = np.stack([make(64, 40).score(task, space, calibration, seed=s, advance=None).values for s in range(12)])
        means.append(each.mean(0))
        errors.append(each.std(0, ddof=1) / len(each) ** 0.5)
    assert np.all(np.abs(means[0] - means[1]) < 4 * np.hypot(*errors))
    assert np.all(errors[1] < 0.05 * means[1])


class Scale(nn.Module):
    """A depthwise 1 x 1 convolution: every weight has outputs of its own, so that the Hessian is diagonal."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 1, groups=6, bias=False)

    def forward(self, x):
        return self.conv(x)


def test_predicts_the_objective_itself_where_it_is_a_diagonal_quadratic():
    torch.manual_seed(0)
    model = Scale()
    data = [torch.randn(1, 6, 1, 1) for _ in range(3)]
    task = bf.Task(model, calibration=data, validation=data[1:], quality="relative_error")
    space = bf.SearchSpace.from_model(model, data[0], formats=["w2t", "w3t"])
    calibration = calibrate(task, space)
    found = bf.sensitivity(task, space, "gauss_newton_diagonal", calibration=calibration)
    quantized = QuantizedModel(model, space, calibration)
    for column, name in enumerate(space.formats):
        increase = 0.0
        for batch in task.calibration:
            with torch.no_grad():
                reference = batch(model)
                with quantized.applied({"conv": name}):
                    increase += float(objective(task, output_tensor(batch(model)), reference, None)) / 3
        assert increase > 0
        assert found.values[0, column] == pytest.approx(increase, rel=1e-4)


def test_saturated_models_are_scored_where_drawn_labels_see_nothing():
    """With a label's probability at 0.9999 hardly any draw differs; the diagonal is found by random signs at once."""
    task, space, calibration = CASES["images"]("kl", formats=("w4",))
    with torch.no_grad():
        task.model.fc.bias[0] += 9
    wanted = exact(task, space, calibration)
    signs = bf.sensitivity(task, space, "gauss_newton_diagonal", calibration=calibration).values
    labels = bf.sensitivity(task, space, "sampled_fisher", calibration=calibration).values
    assert np.all(signs > 0.1 * wanted)
    assert np.all(labels < 0.1 * wanted)


def test_probes_are_backward_passes():
    task, space, calibration = CASES["images"]("kl")
    found = GaussNewtonDiagonal(samples=3, probes=2).score(task, space, calibration, seed=0, advance=None)
    assert (found.forward_passes, found.backward_passes) == (3, 6)
