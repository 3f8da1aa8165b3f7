"""The Hessian-trace proxy: its formula, its perturbations, when it stops, and what it refuses."""

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.evaluators import calibrate, objective
from bitfront.formats import Format
from bitfront.proxies.hessian_trace import HessianTrace
from bitfront.proxies.perturbation import activation_errors, weight_errors
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


def test_half_omega_is_trace_times_squared_error():
    task, space = make("kl")
    calibration = calibrate(task, space)
    scores = HessianTrace(probes=400, tolerance=0.0, batch=6).score(task, space, calibration, seed=0, advance=None)
    traces = explicit_traces(task, space)
    for row, site in enumerate(space.sites):
        weight = task.model.get_parameter(site.parameter)
        delta = calibration.quantize(site, weight, Format.parse("w4").weight).dequantize() - weight
        omega = 0.5 * traces[row] / weight.numel() * float(delta.detach().square().sum())
        column = space.formats.index("w4")
        assert scores.values[row, column] == pytest.approx(omega, rel=1e-5, abs=4.5 * scores.error[row, column])
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


def test_decided_sites_are_left_alone():
    """One weight decides nothing: every budget gives all its bits to it or none, whatever its trace."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 40))
    data = [torch.randn(16, 8) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality="kl")
    one = bf.SearchSpace.from_model(model, data[0], formats=["w4"])
    calibration = calibrate(task, one)
    settled = HessianTrace(tolerance=1e-4).score(task, one, calibration, seed=0, advance=None)
    assert settled.backward_passes == 2 * 16
    every = HessianTrace(tolerance=1e-4, undecided_only=False).score(task, one, calibration, seed=0, advance=None)
    assert every.backward_passes == 32 * 16
    two = bf.SearchSpace.from_model(model, data[0], formats=["w2", "w3", "w4", "w5", "w6", "w8"])
    scores = [
        HessianTrace(tolerance=1e-4, undecided_only=only, probes=64).score(
            task, two, calibrate(task, two), seed=0, advance=None
        )
        for only in (True, False)
    ]
    assert 2 * 16 <= scores[0].backward_passes <= scores[1].backward_passes
    assert np.all(scores[0].error >= scores[1].error * 0.5)


def test_progress_stays_within_the_steps_announced():
    task, space = make("loss")
    calibration = calibrate(task, space)
    for estimator in ("auto", "hutchinson", "hutch++", "xtrace"):
        proxy = HessianTrace(probes=12, tolerance=0, batch=2, estimator=estimator, undecided_only=False)
        done = []
        proxy.score(task, space, calibration, seed=0, advance=done.append)
        assert 0 < sum(done) <= proxy.steps(task, space)


@pytest.mark.parametrize("estimator", ["auto", "gauss_newton", "hutchinson", "hutch++", "xtrace"])
def test_every_estimator_gives_the_same_scores_within_its_error(estimator):
    task, space = make("loss")
    calibration = calibrate(task, space)
    wanted = HessianTrace(probes=600, tolerance=0).score(task, space, calibration, seed=1, advance=None)
    found = HessianTrace(probes=24, tolerance=0, estimator=estimator).score(
        task, space, calibration, seed=2, advance=None
    )
    linear = space.names.index("fc") if estimator == "gauss_newton" else slice(None)
    deviation = np.abs(found.values - wanted.values)[linear]
    assert np.all(deviation <= 5 * np.hypot(found.error, wanted.error)[linear] + 1e-5 * wanted.values[linear])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"estimator": "magic"}, "one of auto"), ({"probes": 1}, "at least 2"), ({"tolerance": float("nan")}, "tolerance"),
     ({"z": -1.0}, "z of at least 0"), ({"batch": 0}, "batch of at least 1"),
     ({"estimator": "hutch++", "probes": 5}, "at least 6 products")],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings, message):
    task, space = make("kl")
    with pytest.raises(bf.errors.InvalidInput, match=message):
        HessianTrace(**settings).score(task, space, calibrate(task, space), seed=0, advance=None)


@pytest.mark.parametrize("estimator", ["auto", "hutchinson", "hutch++"])
def test_a_model_that_cannot_be_differentiated_names_proxies_that_need_no_gradients(estimator):
    class Detached(Net):
        def forward(self, x):
            return self.fc(self.conv(x).detach().flatten(1))

    torch.manual_seed(0)
    model = Detached()
    data = [torch.randn(6, 1, 4, 4) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality="kl")
    space = bf.SearchSpace.from_model(model, data[0], formats=["w4"])
    with pytest.raises(bf.errors.UnsupportedModel, match="weight_mse"):
        HessianTrace(estimator=estimator).score(task, space, calibrate(task, space), seed=0, advance=None)


def test_outputs_that_are_not_finite_are_named():
    task, space = make("kl")
    calibration = calibrate(task, space)
    with torch.no_grad():
        task.model.fc.bias.fill_(float("nan"))
    with pytest.raises(bf.errors.NonFiniteOutput):
        HessianTrace().score(task, space, calibration, seed=0, advance=None)


def test_the_attention_kernel_is_restored_after_double_backward():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.head = nn.Linear(8, 24), nn.Linear(8, 3)

        def forward(self, x):
            query, key, value = self.mix(x)[:, None].chunk(3, -1)
            return self.head(nn.functional.scaled_dot_product_attention(query, key, value)[:, 0].mean(1))

    torch.manual_seed(0)
    data = [(torch.randn(4, 5, 8), torch.randint(0, 3, (4,))) for _ in range(3)]
    model = Attention()
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality="loss")
    space = bf.SearchSpace.from_model(model, data[0], formats=["w4"])
    flags = (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.mem_efficient_sdp_enabled)
    before = [flag() for flag in flags]
    for estimator in ("auto", "hutchinson"):
        score = HessianTrace(estimator=estimator).score(task, space, calibrate(task, space), seed=0, advance=None)
        assert np.isfinite(score.values).all()
    assert [flag() for flag in flags] == before
