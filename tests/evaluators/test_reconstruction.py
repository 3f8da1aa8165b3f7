"""``reconstructed``, and ``calibrate`` with it: every site and format, reproducible, from calibration data alone."""

from types import SimpleNamespace

import bitfront as bf
import pytest
import torch
from bitfront.errors import NonFiniteOutput
from bitfront.evaluators import Calibration, FakeQuantEvaluator, Recipe, calibrate, calibration_steps
from bitfront.evaluators.calibration import narrow_weights
from bitfront.evaluators.quantizers import Layout, choose_scales
from bitfront.evaluators.reconstruction import METHODS, AdaRound, Blocks, Gptq, LayerProblem, Moment, reconstructed
from bitfront.formats import Format, weight_name
from torch import nn
from torch.nn import functional as F

FORMATS = ["w3", "w4z", "w4g32", "w3a8", "bf16"]


class Net(nn.Module):
    """One layer of every kind."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(20, 32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.conv = nn.Conv1d(32, 32, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose1d(32, 16, 2, stride=2)
        self.hidden, self.head = nn.Linear(16, 32), nn.Linear(32, 20)

    def forward(self, tokens):
        x = self.table(tokens)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = F.relu(self.conv(x.mT))
        x = self.up(x).mT
        return self.head(F.relu(self.hidden(x))).mean(1)


def make(seed=0, formats=tuple(FORMATS)):
    torch.manual_seed(seed)
    model, data = Net(), [torch.randint(0, 20, (16, 10)) for _ in range(8)]
    with torch.no_grad():
        model.head.weight *= 20  # outputs that differ between samples
    task = bf.Task(model, calibration=data[:3], validation=data[3:6], holdout=data[6:], quality="kl")
    return task, bf.SearchSpace.from_model(model, data[0], formats=list(formats))


def keys(space, *, embeddings):
    return {
        (site.name, weight_name(target))
        for site in space.sites
        for target in narrow_weights(site)
        if embeddings or site.kind != "embedding"
    }


@pytest.mark.parametrize("method", METHODS)
def test_every_site_and_format_the_same_every_time(method):
    task, space = make()
    start = calibrate(task, space)
    state = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    torch.manual_seed(1)
    solve = Gptq() if method == "gptq" else METHODS[method](steps=40)
    codes, scales = reconstructed(task, space, start, solve)
    assert set(codes) == set(scales) == keys(space, embeddings=False)
    torch.manual_seed(2)
    again = reconstructed(task, space, start, solve)
    assert Calibration(scales, codes).digest == Calibration(again[1], again[0]).digest
    for site in space.sites:
        for target in narrow_weights(site) if site.kind != "embedding" else []:
            key = site.name, weight_name(target)
            near = start.quantize(site, task.model.get_parameter(site.parameter), target)
            assert codes[key].shape == site.weight_shape
            assert codes[key].dtype == near.codes.dtype
            assert not torch.equal(codes[key], near.codes)
            if method != "adaquant":
                assert scales[key] is start.weights[key]
    assert all(torch.equal(tensor, state[name]) for name, tensor in task.model.state_dict().items())
    assert not any(module._forward_hooks for module in task.model.modules())


@pytest.mark.parametrize("method", METHODS)
def test_calibrate_uses_it_and_the_output_comes_closer(method):
    task, space = make(formats=("w3", "bf16"))
    steps = []
    recipe = Recipe(weights=method)
    found = calibrate(task, space, recipe, steps.append)
    assert steps == [1] * calibration_steps(task, space, recipe)
    assert set(found.weights) == keys(space, embeddings=True)
    assert set(found.codes) == keys(space, embeddings=False)
    assert Calibration.from_arrays(found.to_arrays()).digest == found.digest
    uniform = space.uniform("w3")
    near = FakeQuantEvaluator(task, space, calibrate(task, space)).evaluate(uniform)
    assert FakeQuantEvaluator(task, space, found).evaluate(uniform).value < 0.8 * near.value


def test_only_calibration_data_is_read():
    task, space = make()
    start = calibrate(task, space)
    without = SimpleNamespace(model=task.model, calibration=task.calibration)
    expected = Calibration(codes=reconstructed(task, space, start, "gptq")[0]).digest
    assert Calibration(codes=reconstructed(without, space, start, "gptq")[0]).digest == expected
    other = SimpleNamespace(model=task.model, calibration=task.validation)
    assert Calibration(codes=reconstructed(other, space, start, "gptq")[0]).digest != expected


def test_a_method_with_settings_of_its_own():
    task, space = make(formats=("w3",))
    start = calibrate(task, space)
    default = Calibration(codes=reconstructed(task, space, start, "gptq")[0]).digest
    assert Calibration(codes=reconstructed(task, space, start, Gptq())[0]).digest == default
    for method in (Gptq(act_order=False), Gptq(damping=0.5), AdaRound(steps=10)):
        assert Calibration(codes=reconstructed(task, space, start, method)[0]).digest != default


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["w3z", "w4g32"])
def test_a_weight_that_is_stored_the_other_way_round(method, name):
    generator, target = torch.Generator().manual_seed(0), Format.parse(name).weight
    weight, rows = torch.randn(8, 64, generator=generator), torch.randn(90, 64, generator=generator) + 1
    scales, moment = choose_scales(weight, target, 0), Moment((rows.T @ rows / 90)[None], Blocks())
    plain = LayerProblem(weight, Layout.of(weight, target, 0), scales, moment)
    turned = LayerProblem(weight.T.contiguous(), Layout.of(weight.T, target, 1), scales, moment)
    expected, found = (METHODS[method]()([each])[0] for each in (plain, turned))
    assert found.codes.shape == (64, 8)
    torch.testing.assert_close(turned.errors(found), plain.errors(expected), rtol=1e-4, atol=0.0)
    assert float((expected.codes != found.codes.T).float().mean()) < 0.01
    assert float(turned.errors(found).sum()) < 0.5 * float(turned.errors(turned.nearest).sum())


def test_the_seed_samples_the_rows():
    torch.manual_seed(0)
    mixing = torch.randn(32, 32)
    model, data = nn.Sequential(nn.Linear(32, 32)), [torch.randn(rows, 32) @ mixing for rows in (20000, 4, 4)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:])
    space = bf.SearchSpace.from_model(model, data[1], formats=["w8"])
    start = calibrate(task, space)
    one, same, other = (reconstructed(task, space, start, "gptq", seed=seed)[0]["0", "w8"] for seed in (0, 0, 5))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_wide_formats_need_nothing():
    task, space = make(formats=("bf16", "fp32"))
    steps = []
    assert reconstructed(task, space, Calibration(), "adaround", steps.append) == ({}, {})
    assert steps == [1] * len(space.sites)


def test_a_layer_that_the_data_does_not_reach_is_rounded_to_nearest():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.always, self.sometimes = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            y = self.always(x)
            return self.sometimes(y) if bool((x > 5).any()) else y

    torch.manual_seed(0)
    model, data = Gated(), [torch.randn(8, 4).clamp(max=4) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:])
    space = bf.SearchSpace.from_model(model, torch.full((2, 4), 6.0), formats=["w3"])
    start = calibrate(task, space)
    codes, _ = reconstructed(task, space, start, "gptq")
    (site,) = [site for site in space.sites if site.name == "sometimes"]
    near = start.quantize(site, model.sometimes.weight, narrow_weights(site)[0])
    assert torch.equal(codes["sometimes", "w3"], near.codes)


def test_half_precision_models():
    torch.manual_seed(0)
    mixing = torch.randn(16, 16)
    model, data = (
        nn.Sequential(nn.Linear(16, 8)).bfloat16(),
        [(torch.randn(256, 16) @ mixing).bfloat16() for _ in "abc"],
    )
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality="relative_error")
    space = bf.SearchSpace.from_model(model, data[0], formats=["w2"])
    values = [
        FakeQuantEvaluator(task, space, calibrate(task, space, Recipe(weights=name))).evaluate({"0": "w2"}).value
        for name in ("mse", *METHODS)
    ]
    assert max(values[1:]) < values[0]


def test_activations_that_are_not_finite_name_the_layer():
    task, space = make(formats=("w3",))
    with torch.no_grad():
        task.model.hidden.bias.fill_(float("inf"))
    with pytest.raises(NonFiniteOutput, match="the activation that enters head is NaN or infinite"):
        reconstructed(task, space, calibrate(task, space), "gptq")
