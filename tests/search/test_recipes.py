"""Recipes and finetuning chosen by successive halving, against measuring everything."""

import copy

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput, UnsupportedModel
from bitfront.evaluators import FakeQuantEvaluator, Recipe, calibrate, finetune
from bitfront.search import recipes as module
from bitfront.search.finetune_trials import FinetuneSettings, choose_finetuning
from bitfront.search.recipes import choose_recipe
from bitfront.store import Store
from torch import nn

RECIPES = [Recipe(), Recipe(weights="minmax", activations="minmax"), Recipe(activations="percentile")]


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    with torch.no_grad():
        model[2].weight[0, 0] = 3.0  # an outlier that matters: what clips it suffers
    data = [torch.randn(8, 6) for _ in range(14)]
    return bf.Task(model, calibration=data[:4], validation=data[4:13], holdout=data[13:])


@pytest.fixture(scope="module")
def space(task):
    return bf.SearchSpace.from_model(task.model, task.calibration[0], formats=["w3a8", "w4a8", "bf16"])


@pytest.fixture
def store(tmp_path):
    return Store(f"sqlite:///{tmp_path}/store.db")


def test_the_chosen_recipe_is_the_best_when_everything_is_measured(task, space, store):
    found = choose_recipe(task, space, RECIPES, store=store, least=8)
    values = {}
    for recipe in RECIPES:
        evaluator = FakeQuantEvaluator(task, space, calibrate(task, space, recipe))
        values[recipe] = np.array([evaluator.evaluate(space.uniform(name)).values for name in ("w3a8", "w4a8")])
    scales = np.median([each[:, :8].mean(1) for each in values.values()], axis=0)
    expected = {recipe: float((each / scales[:, None]).mean()) for recipe, each in values.items()}
    assert found.recipe == min(expected, key=expected.get)
    assert found.measured[found.recipe].value == pytest.approx(expected[found.recipe], rel=1e-12)
    assert found.measured[found.recipe].samples == 72
    assert not found.left_out
    assert found.recipe != RECIPES[0]
    halved = [each for each in RECIPES if found.measured[each].partial]
    assert halved
    assert found.evaluated < len(RECIPES) * 2 * 3


def test_nothing_is_measured_again_and_a_search_finds_what_was(task, space, store):
    first = choose_recipe(task, space, RECIPES, store=store, least=8)
    again = choose_recipe(task, space, RECIPES, store=store, least=8)
    assert again.evaluated == 0
    assert again.recipe == first.recipe
    more = choose_recipe(task, space, [*RECIPES, Recipe(activations="entropy")], store=store, least=8)
    assert 0 < more.evaluated <= 2 * 3 + 2 * 2
    calibration = calibrate(task, space, first.recipe)
    context = bf.evaluators.evaluation_context(task, calibration, "validation")
    assert space.uniform("w4a8").digest in store.evaluations(context, "validation")


def test_a_recipe_that_does_not_fit_is_left_out_and_said_so(task, space, store, monkeypatch):
    def refuse(task, space, recipe):
        if recipe.equalization != "none":
            raise UnsupportedModel("no normalization before a linear layer")
        return task

    monkeypatch.setattr(module, "prepared", refuse)
    wrong = Recipe(equalization="smoothquant")
    found = choose_recipe(task, space, [wrong, *RECIPES[:2]], store=store, least=8)
    assert found.left_out == {wrong: "no normalization before a linear layer"}
    assert found.difference is None
    with pytest.raises(InvalidInput, match="no recipe could be measured: no normalization"):
        choose_recipe(task, space, [wrong], store=store)
    with pytest.raises(InvalidInput, match="0 recipes and 2 configurations"):
        choose_recipe(task, space, [], store=store)


def test_the_first_recipe_is_compared_with_the_best_where_both_were_measured_on_all_data(task, space, store):
    found = choose_recipe(task, space, RECIPES[:2], store=store, least=999)
    assert found.recipe == RECIPES[1]
    gap = found.measured[RECIPES[1]].value - found.measured[RECIPES[0]].value
    assert found.difference.value == pytest.approx(gap, rel=1e-9)
    assert found.difference.low < 0 < found.difference.high  # 72 samples do not tell them apart, and it says so


def test_finetuning_is_chosen_by_epochs_and_nothing_is_run_again(task, space, store):
    configuration = space.uniform("w3a8")
    calibration = calibrate(task, space)
    settings = [FinetuneSettings(rate) for rate in (1e-6, 3e-3, 1e-3)]
    arguments = (task, space, configuration, calibration, settings)
    found = choose_finetuning(*arguments, epochs=(1, 3), store=store)
    assert found.runs == 3 + 1
    assert set(found.measured) == set(settings)
    judged = copy.copy(task)
    judged.holdout = task.validation

    def alone(each, epochs):
        rate = each.learning_rate
        return finetune(judged, space, configuration, calibration, epochs=epochs, learning_rate=rate, patience=epochs)

    assert found.settings == min(settings, key=lambda each: alone(each, 1).after.value)
    assert found.measured[found.settings].values == alone(found.settings, 3).after.values
    assert found.measured[found.settings].split == "validation"
    again = choose_finetuning(*arguments, epochs=(1, 3), store=store)
    assert again.runs == 0
    assert again.settings == found.settings
    assert choose_finetuning(*arguments, epochs=(1, 3, 5), store=store).runs == 1
    with pytest.raises(InvalidInput, match="at least one FinetuneSettings"):
        choose_finetuning(task, space, configuration, calibration, [], store=store)


def test_a_finetuning_that_explodes_is_out(task, space, store):
    configuration, calibration = space.uniform("w3a8"), calibrate(task, space)
    wild = FinetuneSettings(1e30)
    found = choose_finetuning(
        task, space, configuration, calibration, [wild, FinetuneSettings(1e-3)], epochs=(1, 2), store=store
    )
    assert list(found.failures) == [wild]
    assert found.settings.learning_rate == 1e-3
