"""Quadratic forms of all sites against the explicit Hessian over weights and inputs, by torch.func, in float64."""

import copy
import runpy
from itertools import product
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.evaluators import Recipe, calibrate, objective, prepared
from bitfront.formats import Format
from bitfront.proxies.augmented_hessian import AugmentedHessian, wanted
from bitfront.search.allocation import allocate
from torch import nn
from torch.func import functional_call, grad, hessian

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
images, weight_error = CASES["images"], CASES["weight_error"]


class Layers(nn.Module):
    """Three smooth layers, each called with a keyword, that can move their weights and inputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x, shifts=(0.0, 0.0, 0.0)):
        for layer, shift in zip((self.a, self.b), shifts, strict=False):
            x = torch.tanh(layer(input=x + shift))
        return self.c(x + shifts[2])


def layers(quality, formats=("w2", "w3", "w3a4"), samples=6, ties="none"):
    torch.manual_seed(0)
    data = [(torch.randn(samples, 4), torch.randint(0, 3, (samples,))) for _ in range(3)]
    task = bf.Task(Layers(), calibration=data[:1], validation=data[1:], quality=quality)
    space = bf.SearchSpace.from_model(task.model, data[0], formats=list(formats), ties=ties)
    return task, space, calibrate(task, space)


def explicit(task, space, calibration):
    """Gradient and Hessian of the objective over everything that the formats change, and each cell's direction."""
    batch, model = task.calibration[0], copy.deepcopy(task.model).double()
    inputs = batch.inputs[0].double()
    reference = model(inputs).detach()
    entering, shapes = {}, []
    hooks = [
        getattr(model, name).register_forward_pre_hook(
            lambda module, args, kwargs, name=name: entering.update({name: [*args, *kwargs.values()][0].detach()}),
            with_kwargs=True,
        )
        for name in "abc"
    ]
    model(inputs)
    for hook in hooks:
        hook.remove()
    for name in "abc":
        shapes += [getattr(model, name).weight.shape, entering[name].shape]
    sizes = [shape.numel() for shape in shapes]

    def loss(moves):
        parts = [each.view(shape) for each, shape in zip(moves.split(sizes), shapes, strict=True)]
        changed = {f"{name}.weight": getattr(model, name).weight + parts[2 * at] for at, name in enumerate("abc")}
        output = functional_call(model, changed, (inputs, parts[1::2]))
        return objective(task, output, reference, batch.targets)

    origin = torch.zeros(sum(sizes), dtype=torch.float64)
    directions = {}
    for row, column in np.argwhere(space.allowed):
        site, name = space.sites[row], space.formats[column]
        parts = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
        parts[2 * row] = weight_error(task, space, calibration, site, name)
        target = Format.parse(name).activation
        if target is not None:
            value = entering[site.name].float()
            parts[2 * row + 1] = (calibration.activation(site.name, target)(value) - value).double()
        directions[row, column] = torch.cat([each.flatten() for each in parts])
    return grad(loss)(origin).detach(), hessian(loss)(origin).detach(), directions


@pytest.mark.parametrize(
    ("quality", "curvature"),
    [("kl", "auto"), ("kl", "hessian"), ("relative_error", "auto"), ("cosine", "auto"), ("loss", "auto")],
)
def test_values_and_pairs_are_those_of_the_explicit_hessian(quality, curvature):
    task, space, calibration = layers(quality)
    proxy = AugmentedHessian(curvature=curvature)
    found = proxy.score(task, space, calibration, seed=0, advance=None)
    _, block, directions = explicit(task, space, calibration)
    scale = max(abs(float(each @ block @ each)) for each in directions.values())
    for (row, column), each in directions.items():
        assert found.values[row, column] == pytest.approx(0.5 * float(each @ block @ each), rel=1e-3, abs=1e-5 * scale)
    assert set(found.pairs) == {(0, 1), (0, 2), (1, 2)}
    for (one, other), table in found.pairs.items():
        for first, second in product(range(3), repeat=2):
            form = float(directions[one, first] @ block @ directions[other, second])
            assert table[first, second] == pytest.approx(form, rel=1e-3, abs=1e-5 * scale)
    assert max(np.abs(table).max() for table in found.pairs.values()) > 0.1 * found.values.max()


@pytest.mark.parametrize("curvature", ["hessian", "gauss_newton"])
def test_the_first_order_term_is_added_with_its_sign_where_it_is_asked_for(curvature):
    task, space, calibration = layers("loss")
    plain = AugmentedHessian(curvature=curvature).score(task, space, calibration, seed=0, advance=None)
    more = AugmentedHessian(curvature=curvature, first_order=True)
    found = more.score(task, space, calibration, seed=0, advance=None)
    slope, _, directions = explicit(task, space, calibration)
    for (row, column), each in directions.items():
        gained = found.values[row, column] - plain.values[row, column]
        assert gained == pytest.approx(float(slope @ each), rel=1e-3, abs=1e-6)
    assert (found.values - plain.values).min() < 0 < (found.values - plain.values).max()
    for pair, table in plain.pairs.items():
        np.testing.assert_allclose(found.pairs[pair], table)


def test_a_distance_has_no_first_order_term():
    task, space, calibration = layers("kl")
    plain = AugmentedHessian().score(task, space, calibration, seed=0, advance=None)
    more = AugmentedHessian(first_order=True).score(task, space, calibration, seed=0, advance=None)
    assert np.array_equal(plain.values, more.values)


def test_the_gauss_newton_form_of_a_cross_entropy_is_that_of_its_outputs():
    task, space, calibration = layers("loss", ("w2", "w3"))
    found = AugmentedHessian(curvature="gauss_newton").score(task, space, calibration, seed=0, advance=None)
    task.quality = "kl"  # the curvature of a cross-entropy at the outputs is that of the divergence
    other = AugmentedHessian().score(task, space, calibration, seed=0, advance=None)
    np.testing.assert_allclose(found.values, other.values)


def test_small_errors_are_predicted_and_pairs_are_what_a_sum_misses():
    task, space, calibration = layers("kl", ("w6", "w8"), samples=32)
    found = AugmentedHessian().score(task, space, calibration, seed=0, advance=None)
    evaluator = bf.evaluators.FakeQuantEvaluator(task, space, calibration)
    joint, alone = [], []
    for choice in product(range(2), repeat=3):
        configuration = space.configuration(choice).to_dict()
        truth = evaluator.evaluate(configuration, "calibration").value
        joint.append(abs(found.joint(configuration) / truth - 1))
        alone.append(abs(found.of(configuration) / truth - 1))
    assert max(joint) < 0.1
    assert np.median(joint) < 0.3 * np.median(alone)


def test_corrected_biases_are_part_of_a_format():
    task, space, _ = layers("kl", ("w6", "w8"), samples=32)
    recipe = Recipe(bias_correction=True)
    task = prepared(task, space, recipe)
    calibration = calibrate(task, space, recipe)
    assert calibration.biases
    found = AugmentedHessian().score(task, space, calibration, seed=0, advance=None)
    truth = bf.evaluators.FakeQuantEvaluator(task, space, calibration)
    for row, name in enumerate(space.names):
        measured = truth.evaluate({name: "w6"}, "calibration").value
        assert found.values[row, space.formats.index("w6")] == pytest.approx(measured, rel=0.15)


def test_micro_batches_add_up_to_the_whole(monkeypatch):
    task, space, calibration = layers("kl")
    whole = AugmentedHessian().score(task, space, calibration, seed=0, advance=None)
    cut = AugmentedHessian(batch=2).score(task, space, calibration, seed=0, advance=None)
    monkeypatch.setattr("bitfront.proxies.quadratic_forms._TANGENTS", 1)
    single = AugmentedHessian().score(task, space, calibration, seed=0, advance=None)
    for found in (cut, single):
        np.testing.assert_allclose(found.values, whole.values, rtol=1e-4)
        np.testing.assert_allclose(found.pairs[0, 2], whole.pairs[0, 2], rtol=1e-3, atol=1e-7)


def test_only_the_sites_with_the_largest_interactions_are_paired_and_tied_ones():
    task, space, calibration = layers("kl", ("w2", "w3"), ties=[["b", "c"]])
    every = AugmentedHessian().score(task, space, calibration, seed=0, advance=None)
    found = AugmentedHessian(sites=0).score(task, space, calibration, seed=0, advance=None)
    assert list(found.pairs) == [(1, 2)]
    np.testing.assert_array_equal(found.pairs[1, 2], every.pairs[1, 2])
    assert len(every.pairs) == 3
    task, space, calibration = layers("kl", ("w2", "w3"))
    tables = {(0, 1): np.full((2, 2), -3.0), (0, 2): np.full((2, 2), 1.0), (1, 2): np.full((2, 2), 0.5)}
    assert wanted(space, tables, 2) == [(0, 1)]


def test_allocate_minimises_the_form():
    task, space, calibration = layers("kl", ("w2", "w3", "w4"))
    found = AugmentedHessian().score(task, space, calibration, seed=0, advance=None)
    bits = bf.price(space, metrics=["avg_bits"])["avg_bits"].values
    limit = 3.0
    answer = allocate(found.values, {"bits": bits}, {"bits": limit}, pair_loss=found.pairs)
    predicted = {
        choice: found.joint(space.configuration(choice).to_dict())
        for choice in product(range(3), repeat=3)
        if bits[range(3), choice].sum() <= limit + 1e-12
    }
    assert answer.objective == pytest.approx(min(predicted.values()))
    assert tuple(answer.choice.tolist()) == min(predicted, key=predicted.__getitem__)


def test_settings_out_of_range_are_refused():
    task, space, calibration = images("kl")
    for proxy in (AugmentedHessian(sites=-1), AugmentedHessian(curvature="fisher"), AugmentedHessian(samples=0)):
        with pytest.raises(InvalidInput, match="augmented_hessian"):
            proxy.score(task, space, calibration, seed=0, advance=None)
