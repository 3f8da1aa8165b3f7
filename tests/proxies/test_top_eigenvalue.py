"""The largest eigenvalue of every block against explicit Hessians."""

import runpy
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput, NonFiniteOutput, UnsupportedModel
from bitfront.evaluators import calibrate, objective
from bitfront.proxies.top_eigenvalue import TopEigenvalue
from torch import nn
from torch.func import functional_call, hessian
from torch.nn.attention import SDPBackend, sdpa_kernel

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
images, tokens, doubled, weight_error = CASES["images"], CASES["tokens"], CASES["doubled"], CASES["weight_error"]


def blocks(task, space):
    """The Hessian block of every site in float64."""
    model, batch = doubled(task.model), task.calibration[0]
    inputs = tuple(each.double() if each.is_floating_point() else each for each in batch.inputs)
    reference = model(*inputs).detach()
    found = []
    for site in space.sites:
        weight = model.get_parameter(site.parameter).detach()

        def loss(flat, site=site, weight=weight):
            output = functional_call(model, {site.parameter: flat.reshape(weight.shape)}, inputs)
            return objective(task, output, reference, batch.targets)

        found.append(hessian(loss)(weight.flatten()))
    return found


@pytest.mark.parametrize("quality", ["loss", "kl", "relative_error", "cosine"])
@pytest.mark.parametrize("made", [images, tokens])
def test_it_is_the_eigenvalue_of_the_explicit_hessian(quality, made):
    task, space, calibration = made(quality)
    if made is images:
        task.model.relu = nn.Tanh()
    if quality == "loss" and made is tokens:
        task.calibration[0].targets[:] = task.calibration[0].targets.clamp(min=0)
    found = TopEigenvalue(iterations=60, tolerance=1e-4).score(task, space, calibration, seed=0, advance=None)
    for row, (site, block) in enumerate(zip(space.sites, blocks(task, space), strict=True)):
        largest = float(torch.linalg.eigvalsh(block.detach())[-1])
        error = weight_error(task, space, calibration, site, "w4")
        wanted = 0.5 * largest * float(error.square().sum())
        assert found.values[row, space.formats.index("w4")] == pytest.approx(wanted, rel=2e-3)
        curved = 0.5 * float(error.flatten() @ block @ error.flatten())
        assert curved <= wanted * (1 + 1e-9)  # an upper bound of the second-order term


def test_the_hessian_is_that_of_all_samples_however_they_are_cut():
    task, space, calibration = images("loss", ("w4",))
    task.model.relu = nn.Tanh()
    whole = TopEigenvalue(tolerance=1e-4).score(task, space, calibration, seed=0, advance=None)
    cut = TopEigenvalue(tolerance=1e-4, batch=2).score(task, space, calibration, seed=0, advance=None)
    np.testing.assert_allclose(cut.values, whole.values, rtol=1e-3)
    assert cut.forward_passes > whole.forward_passes == 5


def test_sites_are_taken_in_groups_that_fit_into_memory(monkeypatch):
    task, space, calibration = images("kl", ("w4",))
    whole = TopEigenvalue().score(task, space, calibration, seed=0, advance=None)
    monkeypatch.setattr("bitfront.proxies.top_eigenvalue._MEMORY", 1)
    apart = TopEigenvalue().score(task, space, calibration, seed=0, advance=None)
    np.testing.assert_allclose(apart.values, whole.values, rtol=1e-5)
    assert apart.forward_passes == 2 * whole.forward_passes


def test_attention_is_differentiated_twice_and_its_kernels_are_restored():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.head = nn.Linear(8, 24), nn.Linear(8, 3)

        def forward(self, x):
            q, k, v = self.mix(x).reshape(len(x), 1, -1, 24).chunk(3, -1)
            return self.head(nn.functional.scaled_dot_product_attention(q, k, v)[:, 0].mean(1))

    torch.manual_seed(0)
    data = [torch.randn(3, 5, 8) for _ in range(3)]
    task = bf.Task(Attention(), calibration=data[:1], validation=data[1:], quality="kl")
    space = bf.SearchSpace.from_model(task.model, data[0], formats=["w4"])
    kernels = (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.mem_efficient_sdp_enabled)
    before = [each() for each in kernels]
    calibration = calibrate(task, space)
    found = TopEigenvalue(iterations=60, tolerance=1e-4).score(task, space, calibration, seed=0, advance=None)
    assert [each() for each in kernels] == before
    with sdpa_kernel(SDPBackend.MATH):
        explicit = blocks(task, space)
    for row, block in enumerate(explicit):
        error = weight_error(task, space, calibration, space.sites[row], "w4")
        wanted = 0.5 * float(torch.linalg.eigvalsh(block)[-1] * error.square().sum())
        assert found.values[row, 0] == pytest.approx(wanted, rel=5e-3)


def test_half_precision_agrees_with_float32():
    task, space, calibration = images("kl", ("w4",))
    wanted = TopEigenvalue().score(task, space, calibration, seed=0, advance=None)
    model = task.model.bfloat16()
    data = [(batch.inputs[0].bfloat16(), batch.targets) for batch in (*task.calibration, *task.validation)]
    half = bf.Task(model, calibration=data[:1], validation=[*data[1:], data[0]], quality="kl")
    found = TopEigenvalue().score(half, space, calibrate(half, space), seed=0, advance=None)
    np.testing.assert_allclose(found.values, wanted.values, rtol=0.1)


def test_the_start_vectors_come_from_the_seed():
    task, space, calibration = images("loss", ("w4",))
    proxy = TopEigenvalue(iterations=2)
    first, again, other = (proxy.score(task, space, calibration, seed=seed, advance=None) for seed in (0, 0, 1))
    assert np.array_equal(first.values, again.values)
    assert not np.array_equal(first.values, other.values)


def test_the_error_is_that_of_stopping_early():
    task, space, calibration = images("kl", ("w4", "fp32"))
    column = space.formats.index("w4")
    exact = TopEigenvalue(iterations=80, tolerance=0).score(task, space, calibration, seed=0, advance=None)
    np.testing.assert_allclose(exact.error, 0, atol=1e-5 * exact.values.max())  # the whole space is spanned
    missing, told = [], []
    for seed in range(20):
        found = TopEigenvalue(tolerance=0.3).score(task, space, calibration, seed=seed, advance=None)
        assert np.all(found.error[:, space.formats.index("fp32")] == 0)
        missing.append((exact.values - found.values)[:, column])
        told.append(found.error[:, column])
    missing, told = np.array(missing), np.array(told)
    assert missing.min() > -1e-5 * exact.values.max()  # never above the largest
    assert np.all(told > 0)
    assert np.mean(missing <= told) > 0.7
    assert np.all(told.mean(0) < 0.2 * exact.values[:, column])


def test_progress_stays_within_what_was_announced():
    task, space, calibration = images("loss", ("w4",))
    done = []
    TopEigenvalue().score(task, space, calibration, seed=0, advance=done.append)
    assert 0 < sum(done) <= TopEigenvalue().steps(task, space)


def test_what_cannot_be_computed_is_refused():
    task, space, calibration = images("loss", ("w4",))
    with pytest.raises(InvalidInput, match="at least 1 iteration, got 0"):
        TopEigenvalue(iterations=0).score(task, space, calibration, seed=0, advance=None)

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return x.tanh()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(context, slope):
            (x,) = context.saved_tensors
            return slope * (1 - x.tanh() ** 2)

    class Smooth(nn.Module):
        def forward(self, x):
            return Once.apply(x)

    task.model.relu = Smooth()
    with pytest.raises(UnsupportedModel, match="but no second one; choose a proxy without gradients"):
        TopEigenvalue().score(task, space, calibration, seed=0, advance=None)
    task.model.relu = nn.ReLU()
    with torch.no_grad():
        task.model.conv.bias.fill_(torch.nan)
    with pytest.raises(NonFiniteOutput, match="the Hessian at site"):
        TopEigenvalue().score(task, space, calibration, seed=0, advance=None)
