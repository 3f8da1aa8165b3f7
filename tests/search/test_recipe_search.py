"""The recipe searched before the loop: by real evaluations, stored, told, and used for everything after it."""

import bitfront as bf
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.evaluators import FakeQuantEvaluator, Recipe, calibrate
from bitfront.search.progress import Silent
from bitfront.search.recipe_search import asked_recipes, auto_recipes, references, short
from bitfront.store import Store
from torch import nn

WORSE = Recipe(weights="minmax", activations="minmax")


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    with torch.no_grad():
        model[2].weight[0, 0] = 3.0  # an outlier: whoever does not clip it loses much
    data = [torch.randn(8, 6) for _ in range(14)]
    return bf.Task(model, calibration=data[:4], validation=data[4:10], holdout=data[10:])


@pytest.fixture(scope="module")
def space(task):
    return bf.SearchSpace.from_model(task.model, task.calibration[0], formats=["w3", "w4", "w8"])


def search(task, space, folder, recipe, **options):
    return bf.run(
        task, space, objectives=["quality", "size_mb"], evaluations=8, executor="local", proxies=["weight_mse"],
        recipe=recipe, store=f"sqlite:///{folder}/store.db", **options,
    )  # fmt: skip


def test_the_better_recipe_is_used_and_the_report_says_so(task, space, tmp_path):
    found = search(task, space, tmp_path, [WORSE, Recipe()])
    told = found.report["recipe"]
    assert told["name"] == "default"
    assert {each["name"] for each in told["tried"]} == {"default", "weights=minmax, activations=minmax"}
    assert Recipe(**told["chosen"]) == Recipe()
    assert found.document()["recipe"] == told
    assert "choose the recipe" in found.seconds
    evaluator = FakeQuantEvaluator(task, space, calibrate(task, space, Recipe()))
    for point in found.points[:3]:
        assert evaluator.evaluate(point.configuration).value == pytest.approx(point.validation.value, rel=1e-9)
    again = search(task, space, tmp_path, [WORSE, Recipe()])
    assert again.report["recipe"] == told | {"evaluated": 0}


def test_one_recipe_is_taken_as_it_is(task, space, tmp_path):
    found = search(task, space, tmp_path, WORSE)
    assert found.report["recipe"]["tried"] == []
    assert Recipe(**found.report["recipe"]["chosen"]) == WORSE


def test_auto_tries_what_can_matter_for_the_model_and_the_formats(task, space):
    assert auto_recipes(Recipe(), task, space) == (Recipe(), Recipe(bias_correction=True))
    static = bf.SearchSpace.from_model(task.model, task.calibration[0], formats=["w4a8", "w8"])
    names = {short(each) for each in auto_recipes(Recipe(weights="minmax"), task, static)}
    assert "weights=minmax, activations=percentile" in names
    normed = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    data = [torch.randn(4, 3, 2, 2)]
    other = bf.Task(normed, calibration=data, validation=data, holdout=data)
    names = {short(each) for each in auto_recipes(Recipe(), other, space)}
    assert {"batch_norm=True", "equalization=cross_layer"} <= names
    with pytest.raises(InvalidInput, match="give a Recipe, several of them, or 'auto'"):
        asked_recipes("best", task, space)
    with pytest.raises(InvalidInput, match="give a Recipe"):
        asked_recipes([], task, space)


def test_compared_on_uniform_configurations_and_points_within_the_constraints(task, space, tmp_path):
    store = Store(f"sqlite:///{tmp_path}/store.db")
    found = references(task, space, Recipe(), {"avg_bits": 5.0}, store, Silent())
    uniforms = set(space.uniforms().values())
    assert uniforms <= set(found)
    mixed = [each for each in found if each not in uniforms]
    assert mixed
    prices = bf.price(space, metrics=["avg_bits"])
    assert all(prices.of(each)["avg_bits"].value <= 5.0 for each in mixed)
