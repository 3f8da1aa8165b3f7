"""What every proxy of the registry promises, whatever it computes."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from bitfront.proxies import proxies
from bitfront.proxies.formulas import Entry, best_evolved, read_library
from bitfront.proxies.formulas import proxy as proxy_module

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
images, fingerprint, unchanged = CASES["images"], CASES["fingerprint"], CASES["unchanged"]


@pytest.fixture(autouse=True)
def evolved_formula(monkeypatch):
    """While the shipped library holds no evolved formula, the contract is tested with this one."""
    library = read_library()
    if best_evolved(library) is None:
        expression, numbers = "mean(fisher * square(error))", {"spearman": 0.5}
        library["found"] = Entry("found", "evolved", expression, 1, "Fisher", "test", numbers, numbers)
        monkeypatch.setattr(proxy_module, "read_library", lambda: library)


@pytest.mark.parametrize("name", sorted(proxies()))
def test_scores_keep_the_contract(name, monkeypatch):
    task, space, calibration = images("loss", ("w2", "w4", "w4a8d", "w8a8", "fp32"))
    monkeypatch.setattr(task, "validation", None)  # a proxy that looks at it fails
    monkeypatch.setattr(task, "holdout", None)
    task.model.conv.weight.requires_grad_(False)
    before = fingerprint(task.model)
    proxy = proxies()[name]()
    steps = []
    found = proxy.score(task, space, calibration, seed=0, advance=steps.append)
    assert unchanged(task.model, before)
    assert not task.model.training
    assert [each.requires_grad for each in task.model.parameters()] == [False, True, True, True]
    assert all(each.grad is None for each in task.model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in task.model.modules())
    assert found.proxy == name == proxy.name
    assert found.additive == proxy.additive
    assert found.values.shape == (2, 5)
    assert found.values.dtype == np.float64
    assert np.array_equal(np.isnan(found.values), ~space.allowed)
    assert np.isnan(found.values).any()  # a convolution has no tokens
    assert found.error is None or found.error.shape == found.values.shape
    assert np.all(found.values[:, space.formats.index("fp32")] == 0)
    assert proxy.gradients > 0 or found.backward_passes == 0
    assert 0 < sum(steps) <= proxy.steps(task, space)
    assert proxy.summary
    assert proxy.source


@pytest.mark.parametrize("name", sorted(proxies()))
def test_the_same_seed_gives_the_same_numbers_whatever_was_drawn_before(name):
    task, space, calibration = images("loss", ("w2", "w4a8", "fp32"))
    first = proxies()[name]().score(task, space, calibration, seed=3, advance=None)
    torch.manual_seed(99)
    again = proxies()[name]().score(task, space, calibration, seed=3, advance=None)
    assert np.array_equal(first.values, again.values, equal_nan=True)


@pytest.mark.parametrize("name", sorted(proxies()))
def test_settings_are_plain_and_identify_the_proxy(name):
    settings = vars(proxies()[name]())
    assert all(isinstance(value, int | float | str | bool | type(None)) for value in settings.values())


@pytest.mark.parametrize("name", sorted(proxies()))
def test_a_model_in_training_mode_is_scored_in_evaluation_mode_and_keeps_its_mode(name):
    task, space, calibration = images("loss", ("w2", "w4a8", "fp32"))
    task.model.relu = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Dropout(0.5))
    task.model.eval()
    wanted = proxies()[name]().score(task, space, calibration, seed=3, advance=None)
    task.model.train()
    task.model.fc.eval()
    found = proxies()[name]().score(task, space, calibration, seed=3, advance=None)
    assert np.array_equal(found.values, wanted.values, equal_nan=True)
    assert task.model.training
    assert task.model.relu.training
    assert not task.model.fc.training
