"""Scales and ranges that calibration gathers, and what it refuses."""

import bitfront as bf
import pytest
import torch
from bitfront.errors import NonFiniteOutput, UnsupportedModel
from bitfront.evaluators import Calibration, calibrate
from bitfront.evaluators.quantizers import mse_scales
from bitfront.formats import Format
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.plain = nn.Conv1d(2, 2, 3, padding=1), nn.Linear(2, 3), nn.Linear(3, 3)

    def forward(self, x):
        y = self.conv(F.relu(self.conv(x)))
        return self.plain(self.fc(input=y.mean(-1)))


def make(formats=("w4", "w8", "w8a8"), batches=3, **options):
    torch.manual_seed(0)
    model = Net()
    data = [torch.randn(4, 2, 5) for _ in range(batches + 2)]
    task = bf.Task(model, calibration=data[:batches], validation=data[batches:])
    return task, bf.SearchSpace.from_model(model, data[0], formats=list(formats), **options)


def test_scales_of_every_site_and_width():
    task, space = make()
    found = calibrate(task, space)
    assert set(found.scales) == {(site.name, bits) for site in space.sites for bits in (4, 8)}
    for (name, bits), scale in found.scales.items():
        weight = task.model.get_parameter(f"{name}.weight")
        assert torch.equal(scale, mse_scales(weight, Format.parse(f"w{bits}").weight, 0))


def test_ranges_are_those_of_all_calls_over_all_batches():
    task, space = make()
    seen = {"conv": [], "fc": [], "plain": []}
    with torch.no_grad():
        for batch in task.calibration:
            (x,) = batch.inputs
            y = F.relu(task.model.conv(x))
            z = task.model.conv(y).mean(-1)
            seen["conv"] += [x, y]
            seen["fc"].append(z)
            seen["plain"].append(task.model.fc(z))
    expected = {
        name: (min(float(v.min()) for v in values), max(float(v.max()) for v in values))
        for name, values in seen.items()
    }
    found = calibrate(task, space).ranges
    assert found.keys() == expected.keys()
    for name, bounds in expected.items():
        assert found[name] == pytest.approx(bounds, rel=1e-6)


def test_weight_only_formats_run_no_data(monkeypatch):
    task, space = make(["w4", "bf16"])
    monkeypatch.setattr(Net, "forward", lambda *args: pytest.fail("ran"))
    assert calibrate(task, space).ranges == {}


def test_float_formats_need_nothing():
    task, space = make(["bf16", "fp32"])
    assert calibrate(task, space) == Calibration({}, {})


def test_progress_counts_sites_and_batches():
    task, space = make()
    steps = []
    calibrate(task, space, steps.append)
    assert steps == [1] * (len(space.sites) + len(task.calibration))


def test_the_model_is_as_before():
    task, space = make()
    weights = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    calibrate(task, space)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in task.model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in task.model.modules())


def test_digest_and_merge():
    task, space = make()
    one, again = calibrate(task, space), calibrate(task, space)
    assert one.digest == again.digest
    assert len(one.digest) == 16
    scales = {key: scale.clone() for key, scale in one.scales.items()}
    scales["fc", 4][0] *= 1.001
    other = Calibration(scales, one.ranges)
    moved = Calibration(one.scales, {**one.ranges, "fc": (-1.0, 1.0)})
    assert len({one.digest, other.digest, moved.digest, Calibration().digest}) == 4
    assert one.merged(other).digest == other.digest
    assert Calibration().merged(one).digest == one.digest


def test_weights_that_are_not_finite():
    task, space = make()
    with torch.no_grad():
        task.model.fc.weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteOutput, match="the weight of fc holds NaN or infinity"):
        calibrate(task, space)


def test_activations_that_are_not_finite_name_the_layer():
    task, space = make()
    with torch.no_grad():
        task.model.fc.bias.fill_(float("inf"))
    with pytest.raises(NonFiniteOutput, match="the activation that enters plain is NaN or infinite"):
        calibrate(task, space)
    assert not any(module._forward_pre_hooks for module in task.model.modules())


def test_data_that_the_model_does_not_take():
    torch.manual_seed(0)
    data = [torch.randn(4, 3, 5) for _ in range(3)]
    task = bf.Task(Net(), calibration=data[:1], validation=data[1:])
    space = bf.SearchSpace.from_model(task.model, torch.randn(4, 2, 5), formats=["w8a8"])
    with pytest.raises(UnsupportedModel, match=r"does not accept the calibration data \(0 \(4, 3, 5\)\): ") as caught:
        calibrate(task, space)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [KeyError, AssertionError, AttributeError, NotImplementedError])
def test_any_failure_of_the_model_is_one_line(error, monkeypatch):
    task, space = make()

    def forward(self, x):
        raise error("what went wrong\nand more")

    monkeypatch.setattr(Net, "forward", forward)
    with pytest.raises(UnsupportedModel, match="what went wrong") as caught:
        calibrate(task, space)
    assert "\n" not in str(caught.value)
