"""Scales and ranges that calibration gathers, and what it refuses."""

from dataclasses import replace

import bitfront as bf
import pytest
import torch
from bitfront.errors import InvalidInput, NonFiniteOutput, UnsupportedModel
from bitfront.evaluators import Calibration, FakeQuantEvaluator, Recipe, calibrate, calibration_steps, prepared
from bitfront.evaluators.quantizers import Range, mse_scales
from bitfront.evaluators.recipe import ACTIVATIONS, EQUALIZATIONS, WEIGHTS
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


def test_scales_of_every_site_and_weight_format():
    task, space = make(("w4", "w4z", "w8", "w8a8", "fp8"))
    found = calibrate(task, space)
    names = ("w4", "w4z", "w8", "we4m3")
    assert set(found.weights) == {(site.name, name) for site in space.sites for name in names}
    for (site, name), scales in found.weights.items():
        expected = mse_scales(task.model.get_parameter(f"{site}.weight"), Format.parse(name).weight, 0)
        assert torch.equal(scales.scale, expected.scale)
        assert (scales.zero_point is None) == (name != "w4z")
    assert not found.codes
    assert not found.biases


def inputs(task):
    """What enters each module of ``Net``, by hand: [tensors of all calls and batches]."""
    seen = {"conv": [], "fc": [], "plain": []}
    with torch.no_grad():
        for batch in task.calibration:
            (x,) = batch.inputs
            y = F.relu(task.model.conv(x))
            z = task.model.conv(y).mean(-1)
            seen["conv"] += [x, y]
            seen["fc"].append(z)
            seen["plain"].append(task.model.fc(z))
    return seen


def test_ranges_are_those_of_all_calls_over_all_batches():
    task, space = make(("w8", "w8a8", "w4a4", "w8a8s"))
    expected = {
        name: (min(float(v.min()) for v in values), max(float(v.max()) for v in values))
        for name, values in inputs(task).items()
    }
    found = calibrate(task, space, Recipe(activations="minmax")).ranges
    assert found.keys() == {(name, key) for name in expected for key in ("a8", "a4", "a8s")}
    for (name, _), (low, high) in found.items():
        assert low.shape == high.shape == ()
        assert (float(low), float(high)) == pytest.approx(expected[name], rel=1e-6)


@pytest.mark.parametrize("observer", ["minmax", "moving_average", "percentile", "mse"])
def test_ranges_of_features_have_one_end_each(observer):
    task, space = make(("w8a8c", "w8a8"))
    found = calibrate(task, space, Recipe(activations=observer)).ranges
    assert {key for key in found if key[1] == "a8c"} == {("fc", "a8c"), ("plain", "a8c")}
    for name, values in inputs(task).items():
        if name != "conv":
            rows, (low, high) = torch.cat(values), found[name, "a8c"]
            assert low.shape == high.shape == (rows.shape[1],)
            assert bool((low >= rows.amin(0) - 1e-6).all())
            assert bool((high <= rows.amax(0) + 1e-6).all())
            if observer == "minmax":
                assert torch.allclose(torch.stack([low, high]), torch.stack([rows.amin(0), rows.amax(0)]))


def test_one_scale_a_feature_is_refused_by_the_entropy_observer():
    task, space = make(("w8a8c", "w8a8"))
    with pytest.raises(InvalidInput, match="one scale per feature"):
        calibrate(task, space, Recipe(activations="entropy"))


def test_observers_differ_where_they_should():
    torch.manual_seed(0)
    data = [torch.randn(64, 2, 50) for _ in range(6)]
    task = bf.Task(Net(), calibration=data[:4], validation=data[4:])
    space = bf.SearchSpace.from_model(task.model, data[0], formats=["w4a4"])
    found = {name: calibrate(task, space, Recipe(activations=name)).ranges["conv", "a4"] for name in ACTIVATIONS}
    widths = {name: float(high - low) for name, (low, high) in found.items()}
    assert all(width < widths["minmax"] for name, width in widths.items() if name != "minmax")
    assert len(set(widths.values())) == len(ACTIVATIONS)


def test_one_module_under_two_names():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(4, 4)
            self.two = self.one

        def forward(self, x):
            return self.two(3 * self.one(x))

    torch.manual_seed(0)
    data = [torch.randn(5, 4) for _ in range(4)]
    task = bf.Task(Twice(), calibration=data[:2], validation=data[2:])
    space = bf.SearchSpace.from_model(task.model, data[0], formats=["w8a8"])
    found = calibrate(task, space).ranges
    with torch.no_grad():
        seen = torch.cat([torch.cat([x, 3 * task.model.one(x)]) for x in data[:2]])
    assert {module for site in space.sites for module in site.modules} == {module for module, _ in found}
    for low, high in found.values():
        assert (float(low), float(high)) == pytest.approx((float(seen.min()), float(seen.max())), rel=1e-6)


def test_weight_only_formats_run_no_data(monkeypatch):
    task, space = make(["w4", "bf16"])
    monkeypatch.setattr(Net, "forward", lambda *args: pytest.fail("ran"))
    assert calibrate(task, space).ranges == {}


def test_float_formats_need_nothing():
    task, space = make(["bf16", "fp32"])
    assert calibrate(task, space) == Calibration()


def test_progress_counts_sites_and_batches():
    task, space = make()
    steps = []
    calibrate(task, space, advance=steps.append)
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
    scaled = replace(one.weights["fc", "w4"], scale=one.weights["fc", "w4"].scale * 1.001)
    other = replace(one, weights={**one.weights, ("fc", "w4"): scaled})
    moved = replace(one, ranges={**one.ranges, ("fc", "a8"): Range(torch.tensor(-1.0), torch.tensor(1.0))})
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


class Unreadable(torch.Tensor):
    """A tensor that shows what a ``Task`` checks (shape, type, that it is finite), and no value."""

    _SHOWN = (
        *(each.__get__ for each in (torch.Tensor.shape, torch.Tensor.dtype, torch.Tensor.ndim)),
        torch.Tensor.is_floating_point,
        torch.isfinite,
    )

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func not in cls._SHOWN:
            raise AssertionError(f"{func} reads what calibration must not see")
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


class Layers(nn.Module):
    """Something for every part of a recipe: batch-norm between convolutions, layer-norm before a linear layer."""

    def __init__(self):
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)
        self.scale, self.three, self.four = nn.LayerNorm(4), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.two(F.relu(self.norm(self.one(x)))).mean((2, 3))
        return self.four(F.relu(self.three(self.scale(x))))


RECIPES = [
    *(Recipe(weights=name) for name in WEIGHTS),
    *(Recipe(activations=name) for name in ACTIVATIONS[1:]),
    *(Recipe(equalization=name) for name in EQUALIZATIONS[1:]),
    Recipe(bias_correction=True),
    Recipe("gptq", "mse", "cross_layer", True, True),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_calibration_reads_the_calibration_data_alone(recipe):
    torch.manual_seed(0)
    data = [(torch.randn(4, 2, 6, 6), torch.randint(0, 3, (4,))) for _ in range(2)]
    hidden = [tuple(tensor.as_subclass(Unreadable) for tensor in batch) for batch in data]
    task = bf.Task(Layers(), calibration=data, validation=hidden, holdout=hidden, quality="loss")
    space = bf.SearchSpace.from_model(task.model, data[0], formats=["w4a8"])
    ready, steps = prepared(task, space, recipe), []
    found = calibrate(ready, space, recipe, steps.append)
    assert {site for site, _ in found.weights} == set(space.names)
    assert steps == [1] * calibration_steps(ready, space, recipe)
    for split in ("validation", "holdout"):
        with pytest.raises((AssertionError, UnsupportedModel), match="must not see"):
            FakeQuantEvaluator(ready, space, found).evaluate({}, split)
