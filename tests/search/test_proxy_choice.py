"""``proxies: auto``: the measurements decide, the choice is told, and the rest of the search goes by it."""

from dataclasses import replace

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.proxies import Sensitivity
from bitfront.search.proxy_choice import AUTO, WEIGHTED, choose_proxy
from torch import nn

FORMATS = ["w2", "w3", "w4", "w8", "bf16"]


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    layers = [layer for _ in range(7) for layer in (nn.Linear(12, 12), nn.Tanh())]
    data = [torch.randn(32, 12) for _ in range(3)]
    return bf.Task(
        nn.Sequential(*layers), calibration=data[:1], validation=data[1:2], holdout=data[2:], quality="relative_error"
    )


@pytest.fixture(scope="module")
def space(task):
    return bf.SearchSpace.from_model(task.model, task.calibration[0], formats=FORMATS)


@pytest.fixture(scope="module")
def tables(space):
    """Two halves of the truth, and noise; all layers have the same size, so the size tells little."""
    generator = np.random.default_rng(0)
    step = 4.0 ** -np.array([2, 3, 4, 8, 16])
    parts = generator.lognormal(0, 1.5, size=(2, len(space.sites), 1)) * step
    noise = generator.uniform(size=parts[0].shape)

    def table(name, values):
        return Sensitivity(name, values, None, tuple(space.names), space.formats, 1.0)

    return {
        "first": table("first", 1e6 * parts[0]),
        "second": table("second", parts[1]),
        "noise": table("noise", noise),
        "truth": table("truth", parts[0] + parts[1]),
    }


@pytest.fixture(scope="module")
def configurations(space):
    return bf.search.bench_configurations(space, 120, seed=1)


def chosen(space, tables, names, configurations, truth="truth"):
    measured = [tables[truth].of(each) for each in configurations]
    return choose_proxy(space, {name: tables[name] for name in names}, configurations, measured)


def test_the_truth_is_chosen_and_comes_first(space, tables, configurations):
    choice, ranked = chosen(space, tables, ["noise", "first", "truth"], configurations)
    assert choice.proxy == "truth"
    assert choice.fixed_size
    assert choice.spearman["truth"] == pytest.approx(1)
    assert next(iter(ranked)) == "truth"
    assert set(ranked) >= {"noise", "first", "truth"}
    assert sum(choice.weights.values()) == pytest.approx(1)


def test_two_halves_are_weighted_whatever_their_units(space, tables, configurations):
    choice, ranked = chosen(space, tables, ["first", "second"], configurations)
    assert choice.proxy == WEIGHTED
    assert choice.spearman[WEIGHTED] > max(choice.spearman["first"], choice.spearman["second"])
    assert WEIGHTED in choice.reason
    assert "first" in choice.reason
    scaled = {name: tables[name].of(configurations[0]) for name in ("first", "second")}
    logs = {name: [np.log(tables[name].of(each)) for each in configurations] for name in scaled}
    usual = {name: np.exp(np.mean(values)) for name, values in logs.items()}
    wanted = sum(choice.weights[name] * scaled[name] / usual[name] for name in scaled)
    assert ranked[WEIGHTED].of(configurations[0]) == pytest.approx(wanted)


def test_a_proxy_that_ranks_the_wrong_way_round_gets_no_weight(space, tables, configurations):
    measured = [-tables["truth"].of(each) for each in configurations]
    choice, ranked = choose_proxy(space, {"truth": tables["truth"], "first": tables["first"]}, configurations, measured)
    assert choice.weights == {"truth": 0.0, "first": 0.0}
    assert WEIGHTED not in ranked


def test_too_few_measurements_leave_the_first(space, tables, configurations):
    choice, ranked = chosen(space, tables, ["noise", "truth"], configurations[:2])
    assert choice.proxy == "noise"
    assert list(ranked) == ["noise", "truth"]
    assert "2 measurements" in choice.reason
    few, _ = chosen(space, tables, ["noise", "truth"], configurations[:4])
    assert not few.fixed_size
    assert few.proxy == "truth"


def test_what_only_ranks_is_refused(space, tables, configurations):
    ranking = Sensitivity("r", tables["truth"].values, None, tuple(space.names), space.formats, 1.0, additive=False)
    with pytest.raises(InvalidInput, match="only ranks"):
        choose_proxy(space, {"r": ranking}, configurations[:5], [1.0] * 5)


def test_a_search_with_auto_tells_its_choice_and_goes_by_it(task, space, tmp_path):
    options = {"objectives": ["quality", "size_mb"], "evaluations": 24, "executor": "local", "proxies": "auto"}
    result = bf.run(task, space, store=f"sqlite:///{tmp_path}/store.db", **options)
    choice = result.proxy_choice
    assert set(choice.weights) == set(AUTO)
    assert next(iter(result.problem.sensitivities)) == choice.proxy
    gone_by = {point.origin.split(":")[1] for point in result.points if point.origin.startswith("gap")}
    assert gone_by
    assert gone_by <= {choice.proxy, "surrogate"}  # the surrogate is fitted to the measurements, from the chosen one
    told = result.document()["trust"]
    assert told["choice"]["proxy"] == choice.proxy
    assert told["choice"]["reason"] == choice.reason
    assert set(told["rows"]) >= {*AUTO, choice.proxy, "size", "bops", "random"}
    again = bf.run(task, space, store=f"sqlite:///{tmp_path}/store.db", **options)
    assert again.proxy_choice == choice


def test_predictions_below_zero_are_weighed_like_others(space, tables, configurations):
    below = {
        **tables,
        "first": replace(tables["first"], values=tables["first"].values - 2 * tables["first"].values.max()),
    }
    choice, ranked = chosen(space, below, ["first", "second"], configurations)
    assert all(weight > 0 for weight in choice.weights.values())
    usual = {
        name: np.exp(np.mean([np.log(abs(below[name].of(each))) for each in configurations])) for name in choice.weights
    }
    wanted = sum(weight / usual[name] * below[name].values for name, weight in choice.weights.items())
    np.testing.assert_allclose(ranked[WEIGHTED].values, wanted)
