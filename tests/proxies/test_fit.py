"""FIT against traces and noise powers computed one by one in float64."""

import runpy
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.formats import Format
from bitfront.proxies.fit import FIT
from torch import nn
from torch.nn import functional

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))


def test_equals_trace_times_noise_power():
    task, space, calibration = CASES["images"]("loss", formats=("w3", "w4a8"))
    found = bf.sensitivity(task, space, "fit", calibration=calibration)
    model, batch = CASES["doubled"](task.model), task.calibration[0]
    traces = {site.name: np.zeros((5, 2)) for site in space.sites}
    noises = {site.name: [] for site in space.sites}
    for sample in range(5):
        x = batch.inputs[0][sample : sample + 1].double().requires_grad_(True)
        hidden = functional.relu(model.conv(x)).flatten(1)
        loss = functional.cross_entropy(model.fc(hidden), batch.targets[sample : sample + 1])
        wanted = [model.conv.weight, x, model.fc.weight, hidden]
        squares = [float(each.square().sum()) for each in torch.autograd.grad(loss, wanted)]
        traces["conv"][sample], traces["fc"][sample] = squares[:2], squares[2:]
        for name, value in (("conv", x), ("fc", hidden)):
            value = value.detach()
            rounding = calibration.activation(name, Format.parse("w4a8").activation)
            noises[name].append(float((rounding(value.float()).double() - value).square().mean()))
    for row, site in enumerate(space.sites):
        for column, name in enumerate(space.formats):
            error = CASES["weight_error"](task, space, calibration, site, name)
            noise = np.array([float(error.square().mean()), np.mean(noises[site.name]) if "a" in name else 0.0])
            each = 0.5 * traces[site.name] @ noise
            assert found.values[row, column] == pytest.approx(each.mean(), rel=1e-3)
            assert found.error[row, column] == pytest.approx(each.std(ddof=1) / 5**0.5, rel=1e-3)


def test_is_half_of_omega_at_the_exact_trace():
    """For the divergence to the float model it estimates half of HAWQ-V2's Omega: the trace is that of the Hessian."""
    task, space, calibration = CASES["images"]("kl", formats=("w4",))
    each = np.stack([FIT().score(task, space, calibration, seed=seed, advance=None).values for seed in range(150)])
    error = each.std(0, ddof=1) / len(each) ** 0.5
    model, batch = CASES["doubled"](task.model), task.calibration[0]
    for row, site in enumerate(space.sites):
        parameter = model.get_parameter(site.parameter)
        trace = 0.0
        for sample in range(5):
            logits = model(batch.inputs[0][sample : sample + 1].double())[0]
            p = logits.softmax(0).detach()
            rows = [torch.autograd.grad(logit, parameter, retain_graph=True)[0].flatten() for logit in logits]
            jacobian = torch.stack(rows)
            trace += float((jacobian.T @ (p.diag() - p[:, None] * p) @ jacobian).trace()) / 5
        power = float(CASES["weight_error"](task, space, calibration, site, "w4").square().mean())
        assert abs(each.mean(0)[row, 0] - 0.5 * trace * power) < 4 * error[row, 0]
        assert error[row, 0] < 0.1 * each.mean(0)[row, 0]


def test_every_call_and_module_of_a_site_counts():
    """A layer that runs twice has the noise of both its inputs."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(torch.tanh(self.fc(x)))

    torch.manual_seed(0)
    model = Twice()
    data = [torch.randn(6, 4) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality="relative_error")
    space = bf.SearchSpace.from_model(model, data[0], formats=["w8", "w8a3"])
    found = bf.sensitivity(task, space, "fit")
    gap = found.table.loc["fc", "w8a3"] - found.table.loc["fc", "w8"]
    once = bf.Task(nn.Sequential(model.fc), calibration=data[:1], validation=data[1:], quality="relative_error")
    space = bf.SearchSpace.from_model(once.model, data[0], formats=["w8", "w8a3"])
    alone = bf.sensitivity(once, space, "fit").table
    assert gap > 1.2 * (alone.loc["0", "w8a3"] - alone.loc["0", "w8"])


def test_labels_are_chosen_and_kept_as_plain_settings():
    task, space, calibration = CASES["images"]("loss", formats=("w4",))
    scores = {
        labels: FIT(labels=labels).score(task, space, calibration, seed=0, advance=None).values
        for labels in ("auto", "data", "model")
    }
    assert np.array_equal(scores["auto"], scores["data"])
    assert not np.array_equal(scores["auto"], scores["model"])
    assert vars(FIT(labels="model")) == {"samples": 64, "labels": "model", "first_order": False}
