"""The signed first-order term against gradients of the whole loss in float64, and in every proxy that offers it."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from bitfront.proxies.activation_trace import ActivationTrace
from bitfront.proxies.first_order import first_order_terms, mean_over_samples
from bitfront.proxies.fit import FIT
from bitfront.proxies.gauss_newton_diagonal import GaussNewtonDiagonal
from bitfront.proxies.hessian_trace import HessianTrace
from bitfront.proxies.layer_calls import pieces
from bitfront.proxies.probing import ACTIVATIONS
from bitfront.proxies.top_eigenvalue import TopEigenvalue
from torch.nn import functional

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
images, doubled, weight_error = CASES["images"], CASES["doubled"], CASES["weight_error"]
FORMATS = ("w2", "w4", "w4a8", "fp32")


def reference(task, space, calibration):
    """Gradient of the mean loss at weights and inputs times their errors: [2, sites, formats]."""
    model, batch = doubled(task.model), task.calibration[0]
    entering = {}

    def record(name):
        def enter(module, args):
            entering[name] = args[0].clone().requires_grad_(True)
            entering[name].retain_grad()
            return (entering[name],)

        return enter

    for name in ("conv", "fc"):
        model.get_submodule(name).register_forward_pre_hook(record(name))
    functional.cross_entropy(model(batch.inputs[0].double().requires_grad_(True)), batch.targets).backward()
    found = np.zeros((2, 2, len(space.formats)))
    for row, site in enumerate(space.sites):
        gradient = model.get_parameter(site.parameter).grad
        for column, name in enumerate(space.formats):
            found[0, row, column] = float((gradient * weight_error(task, space, calibration, site, name)).sum())
        value = entering[site.name].detach().float()
        error = calibration.activation(site.name, bf_activation("w4a8"))(value) - value
        found[1, row, space.formats.index("w4a8")] = float((entering[site.name].grad * error.double()).sum())
    return found


def bf_activation(name):
    from bitfront.formats import Format

    return Format.parse(name).activation


@pytest.mark.parametrize("size", [5, 2])
def test_it_is_the_gradient_of_the_loss_times_the_error(size):
    task, space, calibration = images("loss", FORMATS)
    batches = pieces(task, 5, size, "test")
    terms, passes = first_order_terms(task, space, calibration, batches)
    assert passes == 5
    found = mean_over_samples(terms, batches)
    np.testing.assert_allclose(found, reference(task, space, calibration), rtol=1e-4, atol=1e-7)
    assert found[0].min() < 0 < found[0].max()


def test_a_distance_has_none():
    task, space, calibration = images("kl", FORMATS)
    terms, passes = first_order_terms(task, space, calibration, task.calibration)
    assert passes == 0
    assert not terms.any()


@pytest.mark.parametrize("kind", [HessianTrace, TopEigenvalue, FIT, GaussNewtonDiagonal, ActivationTrace])
def test_a_proxy_adds_it_only_where_it_is_asked_for(kind):
    task, space, calibration = images("loss", FORMATS)
    plain = kind().score(task, space, calibration, seed=0, advance=None)
    more = kind(first_order=True).score(task, space, calibration, seed=0, advance=None)
    wanted = reference(task, space, calibration)
    term = wanted[1] if kind is ActivationTrace else wanted[0] if kind is TopEigenvalue else wanted.sum(0)
    np.testing.assert_allclose(more.values - plain.values, term, rtol=1e-3, atol=1e-6)
    assert more.backward_passes == plain.backward_passes + 5
    assert not kind().first_order


def test_its_error_over_the_samples_is_told():
    task, space, calibration = images("loss", FORMATS)
    singles = pieces(task, 5, 1, "test")
    terms, _ = first_order_terms(task, space, calibration, singles)
    plain = ActivationTrace().score(task, space, calibration, seed=0, advance=None)
    more = ActivationTrace(first_order=True).score(task, space, calibration, seed=0, advance=None)
    spread = terms[:, ACTIVATIONS].std(0, ddof=1) / np.sqrt(5)
    np.testing.assert_allclose(more.error, np.hypot(plain.error, spread))


def test_far_from_a_minimum_it_tells_which_way_the_loss_goes():
    task, space, calibration = images("loss", ("w8", "w6"), samples=64)
    plain = HessianTrace().score(task, space, calibration, seed=0, advance=None)
    more = HessianTrace(first_order=True).score(task, space, calibration, seed=0, advance=None)
    from bitfront.proxies.measured import MeasuredLoss

    truth = MeasuredLoss().score(task, space, calibration, seed=0, advance=None).values
    assert np.abs(more.values - truth).max() < 0.2 * np.abs(plain.values - truth).max()
    assert torch.equal(torch.tensor(np.sign(more.values)), torch.tensor(np.sign(truth)))
