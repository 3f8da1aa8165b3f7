"""SNIP, gradient norm, GraSP, Fisher, ZiCo, the tangent kernel: against references written out in float64."""

import copy
import math

import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.proxies.architecture.fisher import Fisher
from bitfront.proxies.architecture.grad_norm import GradNorm
from bitfront.proxies.architecture.grasp import GraSP
from bitfront.proxies.architecture.ntk import NTKCondition
from bitfront.proxies.architecture.snip import SNIP
from bitfront.proxies.architecture.zico import ZiCo
from bitfront.task import Batch
from torch import nn


def network(seed=0):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 5, 1, bias=False)]
    return nn.Sequential(
        *layers, nn.BatchNorm2d(5), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)
    ).double()


def batch(samples=8, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return Batch((torch.randn(samples, 3, 5, 5, generator=draw, dtype=torch.float64),), torch.arange(samples) % 3)


def trained(module):
    """A copy in training mode: normalizations use the batch."""
    return copy.deepcopy(module).train()


def layers(module):
    return [each for each in module.modules() if isinstance(each, (nn.Conv2d, nn.Linear))]


def weights(module):
    return [each.weight.detach() for each in layers(module)]


def gradients(module, images, targets):
    module.zero_grad()
    nn.functional.cross_entropy(module(images), targets).backward()
    return [each.weight.grad for each in layers(module)]


def test_snip_and_gradient_norm():
    module, data = network(), batch()
    copied = trained(module)
    found = gradients(copied, data.inputs[0], data.targets)
    snip = sum(
        float(abs(layer.weight.detach() * gradient).sum())
        for layer, gradient in zip(layers(copied), found, strict=True)
    )
    assert SNIP().score(module, data, None, 0) == pytest.approx(snip)
    assert GradNorm().score(module, data, None, 0) == pytest.approx(sum(float(each.norm()) for each in found))


def test_grasp_is_a_difference_of_gradients():
    module, data = network(), batch()
    copied, step = trained(module), 1e-4
    first = gradients(copied, data.inputs[0], data.targets)

    def moved(sign):
        other = trained(module)
        with torch.no_grad():
            for layer, gradient in zip(layers(other), first, strict=True):
                layer.weight += sign * step * gradient
        return gradients(other, data.inputs[0], data.targets)

    products = [(one - two) / (2 * step) for one, two in zip(moved(1), moved(-1), strict=True)]
    wanted = -sum(
        float((layer.weight.detach() * each).sum()) for layer, each in zip(layers(copied), products, strict=True)
    )
    assert GraSP().score(module, data, None, 0) == pytest.approx(wanted, rel=1e-5)


def test_fisher_is_the_derivative_by_a_mask_of_channels():
    module, data = network(), batch()
    copied, masks = trained(module), []

    def masked(layer, args, output):
        mask = torch.ones(*output.shape[:2], dtype=torch.float64, requires_grad=True)
        masks.append(mask)
        return output * mask.reshape(*mask.shape, *[1] * (output.ndim - 2))

    for layer in layers(copied):
        layer.register_forward_hook(masked)
    nn.functional.cross_entropy(copied(data.inputs[0]), data.targets).backward()
    wanted = sum(float((mask.grad**2).mean(0).sum()) / 2 for mask in masks)
    assert wanted > 0
    assert Fisher().score(module, data, None, 0) == pytest.approx(wanted)


def test_fisher_takes_the_last_dimension_of_a_linear_layer_as_channels():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Flatten(), nn.Linear(8, 3)).double()
    images, targets = torch.randn(5, 2, 3, dtype=torch.float64), torch.arange(5) % 3
    first = module[0](images).detach().requires_grad_(True)
    second = module[2](first.flatten(1))
    second.retain_grad()
    nn.functional.cross_entropy(second, targets).backward()
    one = (first.detach() * first.grad).sum(1)  # [samples, channels]
    two = (second * second.grad).detach()
    wanted = float(one.square().mean(0).sum() + two.square().mean(0).sum()) / 2
    assert Fisher().score(module, Batch((images,), targets), None, 0) == pytest.approx(wanted)


@pytest.mark.parametrize("pieces", [2, 4])
def test_zico_is_mean_over_spread(pieces):
    module, data = network(), batch()
    size = len(data) // pieces
    drawn = [
        gradients(trained(module), data.inputs[0][at : at + size], data.targets[at : at + size])
        for at in range(0, len(data), size)
    ]
    wanted = 0.0
    for layer in zip(*drawn, strict=True):
        values = np.abs(np.stack([each.numpy() for each in layer]))
        ratios = [v.mean() / v.std() for v in values.reshape(pieces, -1).T if v.std() > 0]
        wanted += math.log(sum(ratios))
    assert ZiCo(pieces).score(module, data, None, 0) == pytest.approx(wanted, rel=1e-6)


def test_zico_leaves_out_what_does_not_vary():
    dead = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    nn.init.constant_(dead[0].bias, -100.0)  # nothing gets through: no gradient but at the last bias
    data = Batch((torch.randn(8, 3, dtype=torch.float64),), torch.arange(8) % 2)
    assert ZiCo().score(dead, data, None, 0) == 0.0
    with pytest.raises(InvalidInput, match="larger batch"):
        ZiCo().score(network(), batch(3), None, 0)


@pytest.mark.parametrize("samples", [4, 16])
def test_the_condition_number_of_the_tangent_kernel(samples):
    module, data = network(), batch()
    used = min(samples, len(data))
    rows = []
    for index in range(used):
        copied = trained(module)
        copied(data.inputs[0][:used])[index].sum().backward()
        rows.append(torch.cat([each.weight.grad.flatten() for each in layers(copied)]).numpy())
    wanted = -math.log(np.linalg.cond(np.stack(rows) @ np.stack(rows).T))
    assert NTKCondition(samples).score(module, data, None, 0) == pytest.approx(wanted, rel=1e-5)


def test_a_singular_tangent_kernel_is_the_worst():
    module, data = network(), batch(4)
    twice = Batch((data.inputs[0].repeat(2, 1, 1, 1),), data.targets.repeat(2))
    assert NTKCondition().score(module, twice, None, 0) == -math.inf
    with pytest.raises(InvalidInput, match="two or more"):
        NTKCondition().score(module, batch(1), None, 0)
