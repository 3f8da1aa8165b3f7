"""Least squares and statistics that repair a compressed network."""

import numpy as np
import pytest
import torch
from bitfront import zoo
from bitfront.search.families.compression import compress
from bitfront.search.families.compression.moments import Moments
from bitfront.search.families.compression.reconstruction import _DAMPING, made_up
from bitfront.search.families.compression.statistics import match_means, output_means
from bitfront.task import Batch
from torch import nn


def _correlated(rows=400, width=12):
    draw = torch.Generator().manual_seed(0)
    return (
        torch.randn(rows, 5, generator=draw, dtype=torch.float64)
        @ torch.randn(5, width, generator=draw, dtype=torch.float64)
        + 0.1 * torch.randn(rows, width, generator=draw, dtype=torch.float64)
        + 1
    )


@pytest.mark.parametrize("biased", [True, False])
def test_least_squares_against_the_normal_equations_of_the_samples(biased):
    """Ridge regression towards the weights that stay, as one stacked least-squares problem."""
    x = _correlated()
    weight, bias = torch.randn(4, 12, dtype=torch.float64), torch.randn(4, dtype=torch.float64) if biased else None
    kept, gone = torch.tensor([0, 2, 3, 7, 9]), torch.tensor([1, 4, 5, 6, 8, 10, 11])
    moments = Moments(x.mean(0), x.T @ x / len(x))
    found, shifted = made_up(weight, bias, moments, kept)
    centred = (x - x.mean(0)) if biased else x
    damping = _DAMPING * float(centred[:, kept].square().mean())
    design = np.vstack([centred[:, kept].numpy() / np.sqrt(len(x)), np.sqrt(damping) * np.eye(5)])
    target = np.vstack([(centred[:, gone] @ weight[:, gone].T).numpy() / np.sqrt(len(x)), np.zeros((5, 4))])
    change = np.linalg.lstsq(design, target, rcond=None)[0].T
    np.testing.assert_allclose(found.numpy(), weight[:, kept].numpy() + change, rtol=1e-8, atol=1e-10)
    if biased:
        y, made = x @ weight.T + bias, x[:, kept] @ found.T + shifted
        torch.testing.assert_close(made.mean(0), y.mean(0))
    else:
        assert shifted is None


def test_channels_that_the_others_explain_cost_nothing():
    """Every channel has a weaker copy: the copies can go when the readers are repaired, and not otherwise."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    with torch.no_grad():
        rows = nn.functional.normalize(torch.randn(16, 8), dim=1)
        model[0].weight.copy_(torch.cat([rows, 0.3 * rows]))
        model[0].bias.zero_()
        columns = nn.functional.normalize(torch.randn(4, 32), dim=0)
        model[2].weight.copy_(columns * torch.cat([torch.ones(16), torch.full((16,), 0.9)]))
    x = torch.randn(500, 8)

    def error(recover):
        arguments = {"skip": False, "rank": (), "width": (0.5, 1.0), "calibration": [x]}
        family = compress(model, x[:2], recover=recover, **arguments)
        built = family.build(family.architecture.smallest())
        with torch.no_grad():
            return float((built(x) - model(x)).norm() / model(x).norm())

    assert error(("reconstruct",)) < 0.02 < 0.15 < error(())


def test_mean_outputs_of_the_original_layer_by_layer():
    torch.manual_seed(0)
    model = zoo.fold.fold_batch_norm(zoo.resnet.ResNet(blocks=2, width=8).eval())
    x = torch.randn(16, 1, 8, 8)
    batch = Batch.of(x)
    included = ["conv1", "layer1.1", "layer3.0.conv2"]
    family = compress(model, x[:2], calibration=[x[:10], x[10:]], recover=("statistics",), round_to=4, include=included)
    values = {**family.architecture.largest(), "layer1.1.skip": True, "conv1.width": 0.5, "layer3.0.conv2.rank": 0.25}
    built = family.build(family.architecture.choices(values))
    wanted, found = output_means(model, [batch]), output_means(built, [batch])
    for path in ("layer2.0.conv1", "layer3.1.conv2", "fc"):
        torch.testing.assert_close(found[path], wanted[path], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found["layer3.0.conv2.1"], wanted["layer3.0.conv2"], rtol=1e-3, atol=1e-4)
    assert len(found["layer1.0.conv2"]) == 4


def test_nothing_moves_where_nothing_was_compressed():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval(), torch.randn(16, 4)
    before = [each.clone() for each in model.parameters()]
    match_means(model, [Batch.of(x)], output_means(model, [Batch.of(x)]))
    for old, new in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(old, new, rtol=1e-5, atol=1e-6)


def test_batch_normalization_is_moved_towards_what_it_reads_now():
    """Networks with batch normalization: the statistics of the last norm fit the compressed network."""
    torch.manual_seed(0)
    model = zoo.resnet.ResNet(blocks=2, width=8)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None  # the mean over all batches
    x = torch.randn(64, 1, 8, 8)
    model(x)
    model.eval()
    arguments = {"rank": (), "include": ["layer1.1", "layer3.0.conv1"]}
    plain = compress(model, x[:2], calibration=[x], recover=(), **arguments)
    moved = compress(model, x[:2], calibration=[x], recover=("statistics",), **arguments)
    values = {**plain.architecture.largest(), "layer1.1.skip": True, "layer3.0.conv1.width": 0.5}
    seen = {}

    def misfit(built):
        norm = built.layer3[1].bn2
        handle = norm.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
        with torch.no_grad():
            built(x)
        handle.remove()
        mean = seen["x"].mean((0, 2, 3))
        return float(((mean - norm.running_mean).square() / norm.running_var).mean())

    choices = plain.architecture.choices(values)
    assert misfit(moved.build(choices)) < 0.1 * misfit(plain.build(choices))
    assert moved.build(choices).layer3[0].bn1.running_mean.shape == (16,)
