"""Which Hessian blocks are Gauss-Newton blocks: the graph's answer against the second derivative itself."""

import pytest
import torch
from bitfront.proxies.piecewise_linear import linear_in
from torch import nn


class Residual(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.activation = activation
        self.other = nn.Conv2d(3, 3, 3, padding=1, groups=3)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(12, 4)

    def forward(self, x):
        x = self.activation(self.norm(self.conv(x)))
        x = self.pool(x + self.activation(self.other(x)))
        return self.fc(x.flatten(1))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(4, 4) for _ in range(4))
        self.before = nn.Linear(4, 4)

    def forward(self, x):
        x = self.before(x)
        return self.out((self.query(x) @ self.key(x).mT) @ self.value(x))  # no softmax: a product of activations


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(torch.relu(self.layer(x)))


class Halves(nn.Module):
    """Divides one layer's output by another's."""

    def __init__(self):
        super().__init__()
        self.over, self.under = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.over(x) / (5 + self.under(x))


CASES = {
    "relu": (Residual(nn.ReLU(inplace=True)), (3, 1, 4, 4), {}),
    "hardtanh": (Residual(nn.ReLU6()), (3, 1, 4, 4), {}),
    "gelu": (Residual(nn.GELU()), (3, 1, 4, 4), {"conv", "other"}),
    "attention": (Attention(), (3, 5, 4), {"before"}),
    "tied": (Tied(), (3, 4), {"layer"}),
    "division": (Halves(), (3, 4), {"under"}),
    "instance norm": (
        nn.Sequential(nn.Conv1d(2, 2, 1), nn.InstanceNorm1d(2), nn.Conv1d(2, 2, 1)), (2, 2, 6), {"0"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_second_derivative(case):
    model, shape, curved = CASES[case]
    model = model.double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
            parameter.requires_grad_(False)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    weights = {name.removesuffix(".weight"): each for name, each in model.named_parameters()
               if name.endswith("weight") and each.ndim > 1}  # fmt: skip
    for weight in weights.values():
        weight.requires_grad_(True)
    output = model(x)
    found = dict(zip(weights, linear_in(output, list(weights.values())), strict=True))
    assert {name for name, linear in found.items() if not linear} == set(curved)
    seed = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    gradients = torch.autograd.grad((output * seed).sum(), list(weights.values()), create_graph=True)
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        direction = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        second = torch.zeros_like(weight)
        if gradient.requires_grad:
            product = torch.autograd.grad((gradient * direction).sum(), weight, retain_graph=True, allow_unused=True)
            second = second if product[0] is None else product[0]
        assert (float(second.abs().max()) < 1e-9) == found[name], name


def test_activations_count_too_and_what_the_output_does_not_depend_on():
    weight = torch.randn(3, 3, requires_grad=True)
    x = torch.randn(2, 3, requires_grad=True)
    unused = torch.randn(2, requires_grad=True)
    inner = x @ weight
    copy = inner.clone()
    output = torch.tanh(copy) @ weight
    assert linear_in(output, [x, inner, copy, weight, unused]) == [False, False, False, False, True]
    assert linear_in(torch.relu(copy) @ weight, [x, inner, copy, weight]) == [True, True, True, False]


def test_an_operation_that_is_not_known_counts_as_curved():
    class Mystery(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x * 2

        @staticmethod
        def backward(context, gradient):
            return gradient * 2

    x = torch.randn(3, requires_grad=True)
    assert linear_in(Mystery.apply(x), [x]) == [False]
