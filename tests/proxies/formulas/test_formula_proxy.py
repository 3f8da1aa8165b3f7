"""Proxies that are formulas: EMQ against torch, orientation, reference, passes, refusals."""

import runpy
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput, UnsupportedModel
from bitfront.evaluators import calibrate
from bitfront.proxies import get_proxy
from bitfront.proxies.bit_weighted import noise_bits
from bitfront.proxies.formulas import Entry
from bitfront.proxies.formulas import proxy as proxy_module
from bitfront.proxies.formulas.proxy import EMQ, Evolved, FormulaProxy

CASES = runpy.run_path(str(Path(__file__).parents[1] / "fisher_cases.py"))
images, weight_error = CASES["images"], CASES["weight_error"]


@pytest.fixture
def case():
    return images("loss", ("w2", "w4", "w4a8", "w8"))


def score(proxy, case, seed=0):
    task, space, calibration = case
    return proxy.score(task, space, calibration, seed=seed, advance=None)


def test_emq_is_the_released_formula_times_the_bits():
    task, space, _ = case = images("loss", ("w2", "w4", "w4a8", "fp32"))
    found = score(EMQ(), case)
    model = task.model.double()
    model(torch.ones(1, 1, 4, 4, dtype=torch.float64)).sum().backward()
    for row, site in enumerate(space.sites):
        weight = model.get_parameter(site.parameter)
        chance = torch.softmax(weight.grad.abs().clamp(min=1e-12).log().flatten(), 0)
        importance = float((chance * weight.detach().flatten().relu().sqrt()).sum())
        for column, name in enumerate(space.formats):
            expected = importance * (32 - noise_bits(bf.Format.parse(name)))
            assert found.values[row, column] == pytest.approx(expected, rel=1e-4)
    assert (found.forward_passes, found.backward_passes) == (1, 1)
    assert not found.additive


def test_a_formula_of_errors_costs_no_pass(case):
    space = case[1]
    found = score(FormulaProxy("mine", "sum(square(error))"), case)
    exact = np.array(
        [[float(weight_error(*case, site, name).square().sum()) for name in space.formats] for site in space.sites]
    )
    assert np.allclose(found.values, exact - exact.min(axis=1, keepdims=True), rtol=1e-4)
    assert (found.forward_passes, found.backward_passes) == (0, 0)
    assert found.proxy == "mine"
    assert found.additive


def test_orientation_turns_the_order_round(case):
    worse = score(FormulaProxy("a", "frobenius(error)"), case).values
    better = score(FormulaProxy("a", "negate(frobenius(error))", -1), case).values
    assert np.allclose(worse, better)
    assert (worse >= 0).all()
    assert (worse.min(axis=1) == 0).all()


def test_steps_are_those_of_what_the_formula_needs(case):
    task, space, calibration = case
    for expression, at_least in [("sum(square(error))", 1), ("mean(square(gradient) * square(error))", 5)]:
        proxy, steps = FormulaProxy("a", expression), []
        proxy.score(task, space, calibration, seed=0, advance=steps.append)
        assert at_least < sum(steps) <= proxy.steps(task, space)


def test_more_drawn_elements_come_closer_to_the_whole_weight():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.ReLU(), torch.nn.Linear(96, 4))
    data = [(torch.randn(8, 64), torch.randint(0, 4, (8,))) for _ in range(2)]
    task = bf.Task(model, calibration=data, validation=data, quality="loss")
    space = bf.SearchSpace.from_model(model, data[0], formats=["w2", "w4", "w8"], ties="none")
    case = task, space, calibrate(task, space)
    exact = float(weight_error(*case, space.sites[0], "w2").square().sum())

    def deviation(elements):
        tables = [score(FormulaProxy("a", "sum(square(error))", elements=elements), case, seed) for seed in range(8)]
        return np.mean([abs(table.values[0, 0] / exact - 1) for table in tables])

    assert deviation(64 * 96) < 0.01 < deviation(128)


def test_a_library_names_the_evolved_proxy(case, monkeypatch):
    numbers = {"spearman": 0.5}
    entries = [Entry(f"f{bits}", "evolved", text, 1, "s", "t", numbers, numbers) for bits, text in FOUND.items()]
    monkeypatch.setattr(proxy_module, "read_library", lambda: {each.name: each for each in entries})
    proxy = get_proxy("evolved")
    assert isinstance(proxy, Evolved)
    assert vars(proxy)["expression"] == FOUND[0]
    plain = score(FormulaProxy.of(entries[0]), case)
    assert np.array_equal(score(proxy, case).values, plain.values)
    assert plain.proxy == "f0"


def test_the_evolved_proxy_refuses_a_table_that_would_misallocate(case, monkeypatch):
    numbers = {"spearman": 0.5}
    entry = Entry("f", "evolved", "bits", 1, "s", "t", numbers, numbers)  # more bits, more loss
    monkeypatch.setattr(proxy_module, "read_library", lambda: {"f": entry})
    with pytest.raises(UnsupportedModel, match="in w2 costs less than in w4, whose error is smaller; choose another"):
        score(Evolved(), case)
    assert score(FormulaProxy("mine", "bits"), case).values.min() == 0  # a formula of one's own is taken as it is


FOUND = {0: "mean(fisher * square(error))", 1: "sum(abs(error))"}


def test_an_empty_library_refuses(case, monkeypatch):
    monkeypatch.setattr(proxy_module, "read_library", dict)
    proxy = Evolved()
    for call in (lambda: score(proxy, case), lambda: proxy.steps(*case[:2])):
        with pytest.raises(UnsupportedModel, match="proxy evolved: the library of formulas holds no evolved one"):
            call()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("mean(eror)", 1), "unknown input 'eror'; did you mean 'error'"),
        (("mean(error", 1), "expected '\\)'"),
        (("mean(error)", 2), "orientation 2; expected 1 or -1"),
    ],
)
def test_a_wrong_formula_is_refused_when_it_is_given(given, told):
    with pytest.raises(InvalidInput, match=told):
        FormulaProxy("a", *given)


def test_a_formula_without_use_here_is_said_to_be_so(case):
    with pytest.raises(UnsupportedModel, match=r"proxy a: formula .* one value in all formats; choose another proxy"):
        score(FormulaProxy("a", "sign(bits)"), case)
