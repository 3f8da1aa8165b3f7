"""Cross-layer equalization: the same function, equal ranges, and no pair where there is none."""

import copy

import pytest
import torch
from bitfront.evaluators.equalization import equalize
from bitfront.evaluators.equalization.channels import grouped
from bitfront.evaluators.equalization.dataflow import record
from bitfront.evaluators.equalization.pairs import find_pairs
from bitfront.space import SearchSpace
from bitfront.task import Batch
from torch import nn
from torch.nn import functional as F


def uneven(model, seed=0):
    """Channels of very different ranges, statistics of batch normalization that are not 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear, nn.ConvTranspose2d)):
                spread = torch.randn(len(module.weight), generator=generator).exp()
                module.weight.mul_(spread.reshape(-1, *[1] * (module.weight.ndim - 1)))
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                for tensor in (module.weight, module.running_var):
                    tensor.copy_(torch.rand(len(tensor), generator=generator) + 0.5)
                for tensor in (module.bias, module.running_mean):
                    tensor.copy_(torch.randn(len(tensor), generator=generator))
    return model.eval()


def equalized(model, x):
    """The equalized copy, checked to be the same function, and the pairs by name with their scales."""
    space = SearchSpace.from_model(model, x, formats=["w4"])
    other = copy.deepcopy(model)
    scales = equalize(other, space, Batch.of(x))
    wanted, given = model.double()(x.double()), other.double()(x.double())
    torch.testing.assert_close(given, wanted, rtol=2e-5, atol=2e-5)
    assert list(dict(other.named_modules())) == list(dict(model.named_modules()))
    return other, scales


def pairs_of(model, x):
    space = SearchSpace.from_model(model, x, formats=["w4"])
    return [
        (pair.first.name, pair.second.name, pair.repeat, pair.clip)
        for pair in find_pairs(model, space, record(model, Batch.of(x)))
    ]


def test_two_linear_layers_follow_the_equation():
    torch.manual_seed(0)
    model = uneven(nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)))
    first, second = model[0].weight.detach().double(), model[2].weight.detach().double()
    bias = model[0].bias.detach().clone()
    r1, r2 = first.abs().amax(1), second.abs().amax(0)
    s = (r1 * r2).sqrt() / r2
    other, scales = equalized(model, torch.randn(4, 5))
    torch.testing.assert_close(scales["0"], s)
    torch.testing.assert_close(other[0].weight, first / s[:, None], rtol=1e-6, atol=0)
    torch.testing.assert_close(other[2].weight, second * s, rtol=1e-6, atol=0)
    torch.testing.assert_close(other[0].bias, bias.double() / s, rtol=1e-6, atol=0)
    torch.testing.assert_close(other[0].weight.abs().amax(1), other[2].weight.abs().amax(0), rtol=1e-6, atol=0)


class Inverted(nn.Module):
    """An inverted residual with batch normalization, whose one ReLU6 is called twice, and a pooled classifier."""

    def __init__(self, clip=nn.ReLU6):
        super().__init__()
        self.expand, self.norm1 = nn.Conv2d(4, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.pad = nn.ZeroPad2d(1)
        self.deep, self.norm2 = nn.Conv2d(12, 12, 3, groups=12, bias=False), nn.BatchNorm2d(12)
        self.project, self.norm3 = nn.Conv2d(12, 4, 1), nn.BatchNorm2d(4)
        self.act = clip()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        y = self.act(self.norm1(self.expand(x)))
        y = self.act(self.norm2(self.deep(self.pad(y))))
        return self.fc((x + self.norm3(self.project(y))).mean((2, 3)))


@pytest.mark.parametrize("clip", [nn.ReLU6, nn.ReLU, nn.LeakyReLU, lambda: nn.PReLU(12)])
def test_depthwise_chain_with_batch_norm_and_clip(clip):
    torch.manual_seed(0)
    model = uneven(Inverted(clip))
    x = 16 * torch.randn(3, 4, 6, 6)
    if clip is nn.ReLU6:
        inner = model.norm1(model.expand(x))
        assert ((inner > 6).any((0, 2, 3))).sum() > 3  # the bound matters in many channels
    other, scales = equalized(model, x)
    assert list(scales) == ["expand", "deep"]
    assert all(isinstance(getattr(other, name), nn.Identity) for name in ("norm1", "norm2", "norm3"))
    expand, deep, project = (getattr(other, name).weight.detach().abs() for name in ("expand", "deep", "project"))
    torch.testing.assert_close(expand.amax((1, 2, 3)), deep.amax((1, 2, 3)), rtol=4e-3, atol=0)
    torch.testing.assert_close(deep.amax((1, 2, 3)), project.amax((0, 2, 3)), rtol=4e-3, atol=0)
    if clip is nn.ReLU6:
        assert type(other.act) is nn.ReLU
        torch.testing.assert_close(other.deep.output_bound.flatten(), 6 / scales["deep"], rtol=1e-6, atol=0)


def test_a_chain_is_repeated_until_all_ranges_are_equal():
    torch.manual_seed(0)
    model = uneven(nn.Sequential(*(layer for _ in range(6) for layer in (nn.Conv1d(6, 6, 3, padding=1), nn.ReLU()))))
    other, scales = equalized(model, torch.randn(2, 6, 9))
    assert len(scales) == 5
    for left, right in zip(range(0, 10, 2), range(2, 12, 2), strict=True):
        before = other[left].weight.abs().amax((1, 2))
        after = other[right].weight.abs().amax((0, 2))
        torch.testing.assert_close(before, after, rtol=4e-3, atol=0)


@pytest.mark.parametrize(
    ("model", "shape", "pairs"),
    [
        (
            lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5)),
            (2, 2, 8, 8),
            [("0", "4", 9, "")],
        ),
        (
            lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)),
            (2, 2, 8, 8),
            [("0", "3", 1, "")],
        ),
        (
            lambda: nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(), nn.Conv2d(6, 8, 1, groups=2)),
            (2, 4, 5, 5),
            [("0", "2", 1, "")],
        ),
        (
            lambda: nn.Sequential(
                nn.ConvTranspose2d(4, 6, 3, groups=2), nn.ReLU(), nn.ConvTranspose2d(6, 4, 2, groups=2)
            ),
            (2, 4, 5, 5),
            [("0", "2", 1, "")],
        ),
        (
            lambda: nn.Sequential(
                nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1)
            ),
            (2, 4, 5, 5),
            [("0", "3", 1, "")],
        ),
        (
            lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 3, padding=1)),
            (2, 2, 5, 5),
            [("0", "2", 1, "")],
        ),
        (
            lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect")),
            (2, 2, 5, 5),
            [("0", "1", 1, "")],
        ),
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), (5, 3), [("0", "2", 1, "")]),
    ],
)
def test_what_lies_between(model, shape, pairs):
    torch.manual_seed(0)
    model = uneven(model())
    x = torch.randn(shape)
    other, scales = equalized(model, x)
    assert list(scales) == [pair[0] for pair in pairs]
    folded = copy.deepcopy(other).float()
    assert pairs_of(folded, x) == pairs
    for first, second, repeat, _ in pairs:
        layers = [folded.get_submodule(name) for name in (first, second)]
        kinds = [site.kind for site in SearchSpace.from_model(folded, x, formats=["w4"]).sites]
        before, after = (
            grouped(layer.weight.detach().abs(), kind, getattr(layer, "groups", 1))
            for layer, kind in zip(layers, kinds, strict=True)
        )
        outputs = before.amax((2, 3)).flatten()
        inputs = after.amax((1, 3)).flatten().reshape(-1, repeat).amax(1)
        torch.testing.assert_close(outputs, inputs, rtol=1e-5, atol=0)


class Wired(nn.Module):
    """Two linear layers with something between them."""

    def __init__(self, between, shared=False):
        super().__init__()
        self.between = between
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        if shared:
            self.b.weight = self.a.weight

    def forward(self, x):
        return self.between(self, x)


@pytest.mark.parametrize(
    ("between", "shared"),
    [
        (lambda net, x: net.b(F.gelu(net.a(x))), False),
        (lambda net, x: net.b(F.relu6(net.a(x))), False),
        (lambda net, x: net.b(net.a(x).T), False),
        (lambda net, x: net.b(net.a(x)) + net.a.weight.sum(), False),
        (lambda net, x: (net.b(y := net.a(x)), y), False),
        (lambda net, x: net.b(y := net.a(x)) + y, False),
        (lambda net, x: net.b(net.a(net.a(x))), False),
        (lambda net, x: net.b(F.pad(net.a(x)[:, None], (1, 1))[:, 0, 1:-1]), False),
        (lambda net, x: net.b(F.relu(net.a(x))), True),
        (lambda net, x: net.b(net.a(x) + 1), False),
        (lambda net, x: net.b(F.max_pool1d(F.pad(net.a(x), (0, 4)), 2)), False),
    ],
)
def test_no_pair(between, shared):
    torch.manual_seed(0)
    model = Wired(between, shared).eval()
    x = torch.randn(4, 4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    space = SearchSpace.from_model(model, x, formats=["w4"])
    assert equalize(model, space, Batch.of(x)) == {}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_clip_that_also_reads_a_sum_keeps_its_bound():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(4, 4, 1) for _ in range(3))
            self.act = nn.ReLU6()

        def forward(self, x):
            return self.c(self.act(self.b(self.act(self.a(x))) + x))

    torch.manual_seed(0)
    model = uneven(Sum())
    other, scales = equalized(model, 5 * torch.randn(2, 4, 3, 3))
    assert scales == {}
    assert isinstance(other.act, nn.ReLU6)


def test_channels_of_zeros_stay():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    with torch.no_grad():
        model[0].weight[1] = 0
        model[2].weight[:, 3] = 0
    other, scales = equalized(model, torch.randn(3, 4))
    assert scales["0"][1] == scales["0"][3] == 1
    assert all(bool(torch.isfinite(parameter).all()) for parameter in other.parameters())


def test_excluded_layers_are_left_alone():
    torch.manual_seed(0)
    model = uneven(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2), nn.ReLU(), nn.Linear(2, 2)))
    x = torch.randn(3, 4)
    space = SearchSpace.from_model(model, x, formats=["w4"], exclude=["0"])
    before = model[0].weight.clone()
    assert list(equalize(model, space, Batch.of(x))) == ["2"]
    assert torch.equal(model[0].weight, before)
