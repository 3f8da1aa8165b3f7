"""The trace estimators against the explicit Hessian, and Omega against its definition."""

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.evaluators import calibrate, objective
from bitfront.formats import Format
from bitfront.proxies.hessian_trace import HessianTrace
from bitfront.proxies.perturbation import activation_errors, weight_errors
from bitfront.proxies.trace_estimators import Variables, gauss_newton_probes, hutchinson_probes
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.fc = nn.Linear(12, 4)

    def forward(self, x):
        return self.fc(torch.tanh(self.conv(x)).flatten(1))


def make(quality, formats=("w4", "w4a8")):
    torch.manual_seed(0)
    model = Net()
    data = [(torch.randn(6, 1, 4, 4), torch.randint(0, 4, (6,))) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality=quality)
    return task, bf.SearchSpace.from_model(model, data[0], formats=list(formats))


def explicit_traces(task, space):
    """Per-site trace of the Hessian over weights, by differentiating every element twice."""
    batch = task.calibration[0]
    parameters = [task.model.get_parameter(site.parameter) for site in space.sites]
    output = task.model(*batch.inputs)
    loss = objective(task, output, output.detach(), batch.targets)
    traces = []
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters, create_graph=True), strict=True):
        flat = gradient.flatten()
        rows = [torch.autograd.grad(flat[i], parameter, retain_graph=True)[0].flatten()[i] for i in range(len(flat))]
        traces.append(float(torch.stack(rows).sum()))
    return np.array(traces)


@pytest.mark.parametrize(
    ("quality", "estimator"),
    [("loss", hutchinson_probes), ("kl", gauss_newton_probes), ("relative_error", gauss_newton_probes),
     ("kl", hutchinson_probes)],
)  # fmt: skip
def test_probes_are_unbiased_for_the_explicit_hessian(quality, estimator):
    task, space = make(quality)
    wanted = explicit_traces(task, space)
    variables = Variables(task.model, space)
    generator = torch.Generator().manual_seed(1)
    draws = np.stack([estimator(task, task.calibration[0], variables, generator)[0] for _ in range(600)])
    error = draws.std(0, ddof=1) / np.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(0) - wanted) < 4.5 * error), (draws.mean(0), wanted, error)
    assert np.all(error < 0.2 * np.abs(wanted))  # the check above has teeth


def test_activation_traces_agree_between_the_two_estimators():
    task, space = make("kl")
    variables = Variables(task.model, space)
    generator = torch.Generator().manual_seed(1)
    means, errors = [], []
    for estimator in (hutchinson_probes, gauss_newton_probes):
        draws = np.stack([estimator(task, task.calibration[0], variables, generator)[1] for _ in range(600)])
        means.append(draws.mean(0))
        errors.append(draws.std(0, ddof=1) / np.sqrt(len(draws)))
    assert np.all(np.abs(means[0] - means[1]) < 4.5 * np.hypot(*errors))
    assert np.all(means[1] > 0)


def test_activation_trace_of_the_last_layer_has_a_closed_form():
    """For relative error the Hessian in the last layer's input is W^T W / sum y^2, for every sample."""
    task, space = make("relative_error")
    batch = task.calibration[0]
    with torch.no_grad():
        output = task.model(*batch.inputs)
        energy = task.model.fc.weight.double().square().sum()
        wanted = float(energy * len(batch) / output.double().square().sum())
    variables = Variables(task.model, space)
    generator = torch.Generator().manual_seed(1)
    draws = np.array([gauss_newton_probes(task, batch, variables, generator)[1, 1] for _ in range(800)])
    assert abs(draws.mean() - wanted) < 4.5 * draws.std() / np.sqrt(len(draws))


def test_omega_is_trace_times_squared_error():
    task, space = make("kl")
    calibration = calibrate(task, space)
    scores = HessianTrace(probes=400, tolerance=0.0, batch=6).score(task, space, calibration, seed=0, advance=None)
    traces = explicit_traces(task, space)
    for row, site in enumerate(space.sites):
        weight = task.model.get_parameter(site.parameter)
        delta = calibration.quantize(site, weight, Format.parse("w4").weight).dequantize() - weight
        omega = traces[row] / weight.numel() * float(delta.square().sum())
        column = space.formats.index("w4")
        assert scores.values[row, column] == pytest.approx(omega, abs=4.5 * scores.error[row, column])
        assert scores.values[row, space.formats.index("w4a8")] > scores.values[row, column]


def test_perturbations_equal_their_definition():
    task, space = make("kl", formats=("w3", "w4a8", "bf16"))
    calibration = calibrate(task, space)
    weights = weight_errors(task, space, calibration)
    for row, site in enumerate(space.sites):
        weight = task.model.get_parameter(site.parameter).detach()
        bf16 = float((weight.bfloat16().float() - weight).double().square().sum())
        assert weights[row, space.formats.index("bf16")] == pytest.approx(bf16)
    errors, elements = activation_errors(task, space, calibration, task.calibration)
    assert elements.tolist() == [16.0, 12.0]
    batch = task.calibration[0].inputs[0]
    rounded = calibration.activation("conv", Format.parse("w4a8").activation)(batch)
    assert errors[0, space.formats.index("w4a8")] == pytest.approx(
        float((rounded - batch).square().sum()) / 6, rel=1e-4
    )
    assert np.all(errors[:, space.formats.index("w3")] == 0)


def test_scores_leave_the_model_as_it_was_and_depend_on_the_seed_alone():
    task, space = make("loss")
    task.model.conv.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    first, again, other = (bf.sensitivity(task, space, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.values, again.values)
    assert not np.array_equal(first.values, other.values)
    assert all(torch.equal(before[name], tensor) for name, tensor in task.model.state_dict().items())
    assert not task.model.conv.weight.requires_grad
    assert task.model.fc.weight.requires_grad
    assert all(parameter.grad is None for parameter in task.model.parameters())


def test_fused_attention_can_be_scored():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    data = [torch.randn(4, 5, 16) for _ in range(3)]
    task = bf.Task(layer, calibration=data[:1], validation=data[1:], quality=lambda y, _: y.square().mean((1, 2)),
                   loss=None)  # fmt: skip
    space = bf.SearchSpace.from_model(layer, data[0], formats=["w4"])
    assert np.all(bf.sensitivity(task, space).values > 0)


def test_unknown_proxy_names_the_nearest():
    task, space = make("kl")
    with pytest.raises(bf.errors.InvalidInput, match="did you mean 'hessian_trace'"):
        bf.sensitivity(task, space, proxy="hesian_trace")
