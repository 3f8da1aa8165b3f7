"""Jobs that compare recipes and hyper-parameters of finetuning: what the schema makes of them."""

import pytest
from bitfront.errors import InvalidInput
from bitfront.evaluators import Recipe
from bitfront.search import FinetuneSettings, RayExecutor
from bitfront.service.job import parse_job
from bitfront.service.job_key import job_key
from bitfront.service.run_job import executor_of

MODEL = {"model": {"zoo": "digits_resnet20"}}


def test_listed_recipes_change_what_they_name_and_keep_the_rest():
    given = {"bias_correction": True, "search": [{"weights": "gptq"}, {"bias_correction": False}, {}]}
    asked = parse_job(MODEL | {"quantization": given}).quantization
    base = Recipe(bias_correction=True)
    assert asked.recipe == base
    assert asked.listed == (base, Recipe(weights="gptq", bias_correction=True), Recipe())
    with pytest.raises(InvalidInput, match="did you mean 'weights'"):
        parse_job(MODEL | {"quantization": {"search": [{"weight": "gptq"}]}})


def test_finetuning_settings_and_their_rungs():
    asked = parse_job(MODEL | {"finetune": {"epochs": 20, "learning_rate": 0.003, "search": "auto"}}).finetune
    assert [each.learning_rate for each in asked.settings] == pytest.approx([0.003, 0.001, 0.009])
    assert asked.rungs == (2, 6, 20)
    listed = parse_job(MODEL | {"finetune": {"epochs": 2, "search": [{"loss": "task"}]}}).finetune
    assert listed.settings == (FinetuneSettings(), FinetuneSettings(loss="task"))
    assert listed.rungs == (1, 2)


def test_the_key_of_a_job_covers_the_search_of_recipes(tmp_path):
    plain, auto = (parse_job(MODEL | {"quantization": each}) for each in ({}, {"search": "auto"}))
    assert job_key(plain, tmp_path) == job_key(parse_job(MODEL), tmp_path) != job_key(auto, tmp_path)


def test_workers_reach_the_executor():
    job = parse_job(MODEL | {"workers": {"count": 2, "storage": "/shared/tune"}})
    executor = executor_of("ray", job)
    assert isinstance(executor, RayExecutor)
    assert (executor.workers, executor.gpus, executor.storage) == (2, None, "/shared/tune")
