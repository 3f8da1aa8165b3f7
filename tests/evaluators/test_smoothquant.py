"""SmoothQuant: eq. 4, the same function, shared scales, folded norms, and what the quantizers see."""

import copy
import pickle

import bitfront as bf
import pytest
import torch
from bitfront.evaluators import Recipe, calibrate, prepared
from bitfront.evaluators.equalization import smooth
from bitfront.space import SearchSpace
from bitfront.task import Batch, Task
from torch import nn
from torch.nn import functional as F

FEATURES = 8


class PreNorm(nn.Module):
    """A pre-norm block: q, k and v alone read their norm; up reads a norm that the residual reads too."""

    def __init__(self, norm=nn.LayerNorm):
        super().__init__()
        self.norm = norm(FEATURES)
        self.q, self.k, self.v = (nn.Linear(FEATURES, FEATURES) for _ in range(3))
        self.shared_norm = norm(FEATURES)
        self.up, self.down = nn.Linear(FEATURES, 16), nn.Linear(16, FEATURES, bias=False)

    def forward(self, x):
        y = self.norm(x)
        mixed = (self.q(y) @ self.k(y).mT).softmax(-1) @ self.v(y)
        z = self.shared_norm(x + mixed)
        return z + self.down(F.gelu(self.up(z)))


def block(norm=nn.LayerNorm, seed=0):
    torch.manual_seed(seed)
    model = PreNorm(norm).eval()
    with torch.no_grad():
        for each in (model.norm, model.shared_norm):
            each.weight.copy_(torch.randn(FEATURES).exp())
            if norm is nn.LayerNorm:
                each.bias.copy_(torch.randn(FEATURES))
    return model, [Batch.of(torch.randn(3, 5, FEATURES)) for _ in range(3)]


def smoothed(model, batches, alpha=0.5):
    space = SearchSpace.from_model(model, batches[0], formats=["w8"], ties="none")
    other = copy.deepcopy(model)
    return other, smooth(other, space, batches, alpha)


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.8])
def test_the_scale_follows_the_equation_over_all_batches_and_sharers(alpha):
    model, batches = block()
    _, scales = smoothed(model, batches, alpha)
    inputs = torch.cat([model.norm(batch.inputs[0]) for batch in batches]).double().flatten(0, 1).abs().amax(0)
    weights = torch.stack([layer.weight.double().abs().amax(0) for layer in (model.q, model.k, model.v)]).amax(0)
    expected = (inputs**alpha / weights ** (1 - alpha)).float()
    for name in ("q", "k", "v"):
        torch.testing.assert_close(scales[name], expected, rtol=1e-5, atol=0)
    assert not torch.equal(scales["up"], scales["q"])
    assert scales["down"].shape == (16,)


class WrittenOut(nn.Module):
    """An RMSNorm as language models write it."""

    def __init__(self, features):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6))


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm, WrittenOut])
def test_the_function_stays_and_norms_that_only_layers_read_take_the_scale(norm):
    model, batches = block(norm)
    other, scales = smoothed(model, batches)
    for batch in batches:
        torch.testing.assert_close(batch(other), batch(model), rtol=1e-5, atol=1e-5)
    hooked = {name for name, module in other.named_modules() if hasattr(module, "smoothing")}
    assert hooked == {"up", "down"}
    torch.testing.assert_close(other.norm.weight * scales["q"], model.norm.weight)
    assert torch.equal(other.shared_norm.weight, model.shared_norm.weight)


@pytest.mark.parametrize(
    "norm",
    [
        lambda net, x: (1 + net.weight) * x,  # not proportional to the parameter
        lambda net, x: net.weight * x + net.weight,  # read twice
        lambda net, x: x * net.weight.sum(),
        lambda net, x: F.layer_norm(x, (FEATURES,), net.weight, 2 * net.other),
        lambda net, x: F.layer_norm(x, (FEATURES,), net.weight.exp(), net.weight),
        lambda net, x: F.layer_norm(x, (FEATURES,), None, net.weight),
        lambda net, x: F.relu(net.weight * x),
        lambda net, x: x * net.weight[0],
        lambda net, x: x * net.single,
        lambda net, x: net.weight * net.other + 0 * x,
    ],
)
def test_products_that_cannot_take_the_scale(norm):
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.single = nn.Parameter(torch.rand(FEATURES)), nn.Parameter(torch.rand(1))
            self.other = nn.Parameter(torch.rand(FEATURES))
            self.fc = nn.Linear(FEATURES, 3)

        def forward(self, x):
            return self.fc(norm(self, x))

    torch.manual_seed(0)
    model, batch = Product().eval(), Batch.of(torch.randn(4, FEATURES))
    other, _ = smoothed(model, [batch])
    assert hasattr(other.fc, "smoothing")
    assert torch.equal(other.weight, model.weight)
    assert torch.equal(other.single, model.single)
    torch.testing.assert_close(batch(other), batch(model), rtol=1e-5, atol=1e-6)


def test_what_enters_the_layer_is_divided_before_later_hooks_see_it():
    model, batches = block()
    other, scales = smoothed(model, batches)
    plain, divided = [], []
    model.down.register_forward_pre_hook(lambda _, args: plain.append(args[0]))
    other.down.register_forward_pre_hook(lambda _, args: divided.append(args[0]))
    batches[0](model)
    batches[0](other)
    torch.testing.assert_close(divided[0], plain[0] / scales["down"], rtol=1e-4, atol=1e-6)


def test_smoothing_twice_is_still_the_same_function():
    model, batches = block()
    once, _ = smoothed(model, batches)
    twice, scales = smoothed(once, batches, alpha=0.9)
    torch.testing.assert_close(batches[0](twice), batches[0](model), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(twice.down.smoothing, once.down.smoothing * scales["down"])


def test_a_norm_with_another_reader_a_tied_head_and_a_layer_called_twice():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(10, FEATURES)
            self.norm, self.fc = nn.LayerNorm(FEATURES), nn.Linear(FEATURES, FEATURES)
            self.head = nn.Linear(FEATURES, 10, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens):
            x = self.norm(self.embed(tokens))
            return self.head(self.fc(input=self.fc(x)) + x.abs())

    torch.manual_seed(0)
    model, batch = Mixed().eval(), Batch.of(torch.randint(10, (2, 4)))
    other, scales = smoothed(model, [batch])
    assert list(scales) == ["fc"]
    assert torch.equal(other.embed.weight, model.embed.weight)
    assert torch.equal(other.norm.weight, model.norm.weight)
    torch.testing.assert_close(batch(other), batch(model), rtol=1e-5, atol=1e-5)


def test_transformers_conv1d():
    pytorch_utils = pytest.importorskip("transformers.pytorch_utils")
    torch.manual_seed(0)
    model = nn.Sequential(nn.LayerNorm(6), pytorch_utils.Conv1D(9, 6), nn.GELU(), pytorch_utils.Conv1D(4, 9)).eval()
    batch = Batch.of(torch.randn(2, 5, 6))
    other, scales = smoothed(model, [batch])
    inputs = model[0](batch.inputs[0]).abs().amax((0, 1))
    torch.testing.assert_close(scales["1"], (inputs / model[1].weight.abs().amax(1)).sqrt())
    assert not hasattr(other[1], "smoothing")
    torch.testing.assert_close(batch(other), batch(model), rtol=1e-5, atol=1e-6)


def test_features_that_are_never_used_keep_their_scale():
    model = nn.Sequential(nn.Linear(4, 3)).eval()
    with torch.no_grad():
        model[0].weight[:, 2] = 0
    x = torch.randn(5, 4)
    x[:, 1] = 0
    other, scales = smoothed(model, [Batch.of(x)])
    assert scales["0"][1] == scales["0"][2] == 1
    torch.testing.assert_close(other(x), model(x))


def outliers(seed=0):
    """A layer whose input has a few features of 100 times the size of the others, with weights as much smaller."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 32)).eval().requires_grad_(False)
    size = torch.ones(64)
    size[::16] = 100
    model[0].weight /= size
    batches = [torch.randn(32, 64) * size for _ in range(4)]
    return Task(model, calibration=batches[:2], validation=batches[2:3], holdout=batches[3:], quality="relative_error")


def test_outliers_of_the_input_lose_their_harm():
    task = outliers()
    space = SearchSpace.from_model(task.model, task.calibration[0], formats=["w8a8"])
    errors = {}
    for equalization in ("none", "smoothquant"):
        recipe = Recipe(equalization=equalization)
        changed = prepared(task, space, recipe)
        found = calibrate(changed, space, recipe)
        weight = found.quantize(space.sites[0], changed.model[0].weight, bf.Format.parse("w8a8").weight).dequantize()
        x = task.validation[0].inputs[0]
        divided = x / changed.model[0].smoothing if equalization == "smoothquant" else x
        rounded = found.activation("0", bf.Format.parse("w8a8").activation)(divided)
        output = rounded @ weight.T + changed.model[0].bias
        wanted = task.model(x)
        errors[equalization] = float((output - wanted).norm() / wanted.norm())
    assert errors["smoothquant"] < errors["none"] / 10


def test_digests_tell_smoothings_apart_and_copies_keep_the_hook():
    model, batches = block()
    task = Task(model, calibration=batches, validation=batches, holdout=batches)
    digests = {task.digest()}
    for alpha in (0.4, 0.5):
        other, _ = smoothed(model, batches, alpha)
        digests.add(Task(other, calibration=batches, validation=batches, holdout=batches).digest())
        for twin in (copy.deepcopy(other), pickle.loads(pickle.dumps(other))):
            assert torch.equal(batches[0](twin), batches[0](other))
    assert len(digests) == 3


def test_the_export_of_a_smoothed_model_divides_too(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, batches = block()
    task = Task(model, calibration=batches, validation=batches, holdout=batches)
    space = SearchSpace.from_model(model, batches[0], formats=["w8a8"])
    recipe = Recipe(equalization="smoothquant")
    changed = prepared(task, space, recipe)
    report = bf.export(
        changed.model,
        space.uniform("w8a8"),
        tmp_path / "block.onnx",
        example_inputs=batches[0],
        calibration=calibrate(changed, space, recipe),
        space=space,
    )
    assert report.relative_error <= report.bound < 0.1
    assert report.node_counts["Div"] >= 2
