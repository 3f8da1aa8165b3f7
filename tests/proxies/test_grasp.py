"""GraSP against explicit Hessians."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from bitfront.formats import Format
from bitfront.proxies import grasp
from bitfront.proxies.grasp import GraSP
from bitfront.proxies.likelihood import score
from bitfront.proxies.recording import Pass
from torch.func import functional_call, grad, hessian
from torch.nn import functional

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
images, doubled = CASES["images"], CASES["doubled"]


def explicit(model, space, inputs, targets):
    """sum |w (H g)| of each site from the whole Hessian over all sites' weights, in float64."""
    weights = [model.get_parameter(site.parameter).detach() for site in space.sites]
    sizes = [weight.numel() for weight in weights]
    start = torch.cat([weight.flatten() for weight in weights])

    def loss(flat):
        parts = zip(flat.split(sizes), weights, space.sites, strict=True)
        state = {site.parameter: part.reshape(weight.shape) for part, weight, site in parts}
        return functional.cross_entropy(functional_call(model, state, (inputs,)), targets)

    products = start * (hessian(loss)(start) @ grad(loss)(start))
    return np.array([float(part.abs().sum()) for part in products.split(sizes)])


def test_it_is_weight_times_hessian_times_gradient_of_every_batch():
    task, space, calibration = images("loss", ("w2", "w4", "fp32"))
    task.model.relu = torch.nn.Tanh()
    model, batch = doubled(task.model), task.calibration[0]
    draws = []
    for start in (0, 2, 4):
        piece = batch.piece(start, start + 2)
        draws.append(explicit(model, space, piece.inputs[0].double(), piece.targets))
    importance = np.mean(draws, axis=0)
    bits = np.array([Format.parse(name).weight_bits for name in space.formats])
    found = GraSP(batch=2).score(task, space, calibration, seed=0, advance=None)
    np.testing.assert_allclose(found.values, (importance / importance.sum())[:, None] * (1 - bits / 32), rtol=1e-3)
    assert found.error.shape == found.values.shape
    assert (found.forward_passes, found.backward_passes) == (5, 10)


@pytest.mark.parametrize("quality", ["kl", "relative_error", "cosine"])
def test_a_random_gradient_stands_in_where_the_own_outputs_are_the_aim(quality):
    """The loss has just that gradient at the outputs, and for one sample the curvature of the objective."""
    task, _, _ = images(quality, labelled=False)
    output = torch.randn(3, 4, generator=torch.Generator().manual_seed(5)).requires_grad_(True)

    def loss(value):
        return grasp._loss(task, Pass(value, None, []), "signs", torch.Generator().manual_seed(1))

    (slope,) = torch.autograd.grad(loss(output), output)
    generator = torch.Generator().manual_seed(1)
    draws = [score(task, output[index : index + 1], None, "signs", generator) for index in range(3)]
    wanted = torch.cat([each.seed * each.scale for each in draws]) / 3
    torch.testing.assert_close(slope, wanted)
    single = output.detach()[:1].requires_grad_(True)
    curvature = torch.autograd.functional.hessian(loss, single).reshape(4, 4)
    seeds = [score(task, single, None, "signs", generator) for _ in range(4000)]
    roots = torch.stack([each.seed.flatten() * each.root for each in seeds])
    torch.testing.assert_close(roots.T @ roots / 4000, curvature, atol=0.06 * float(curvature.abs().max()), rtol=0)


def test_the_seed_decides_and_rectifiers_are_no_obstacle():
    task, space, calibration = images("kl", labelled=False)
    first, again, other = (GraSP().score(task, space, calibration, seed=seed, advance=None) for seed in (0, 0, 1))
    assert np.array_equal(first.values, again.values)
    assert not np.array_equal(first.values, other.values)
    assert first.error is None  # one batch
