"""The cache of trained weights: keyed by the recipe, never half-written, healed when damaged."""

import dataclasses
import subprocess
import sys

import pytest
import torch
from bitfront.zoo.training import Recipe, fit, reproducible
from bitfront.zoo.weights_cache import cached, default_folder, recipe_digest
from torch import nn

RECIPE = Recipe("tiny", 1, "none", steps=1, batch=1, learning_rate=0.1)


def _linear() -> nn.Linear:
    with reproducible(0):
        return nn.Linear(3, 2)


def _set_to(value):
    def train(model):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(value)

    return train


def _never(_):
    raise AssertionError("trained although the cache holds the weights")


@pytest.mark.parametrize("change", [{"version": 2}, {"data": "other"}, {"steps": 2}, {"seed": 1}, {"name": "small"}])
def test_every_field_changes_the_digest(change):
    assert recipe_digest(dataclasses.replace(RECIPE, **change)) != recipe_digest(RECIPE)


def test_stores_once_and_reads_afterwards(tmp_path):
    cached(_linear(), RECIPE, _set_to(3.0), tmp_path)
    assert float(cached(_linear(), RECIPE, _never, tmp_path).weight.detach().mean()) == 3.0
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]
    other = cached(_linear(), dataclasses.replace(RECIPE, version=2), _set_to(4.0), tmp_path)
    assert float(other.weight.detach().mean()) == 4.0


@pytest.mark.parametrize("content", [b"", b"not safetensors", None])
def test_a_damaged_file_is_trained_anew(tmp_path, content):
    cached(_linear(), RECIPE, _set_to(3.0), tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-4] if content is None else content)
    assert float(cached(_linear(), RECIPE, _set_to(5.0), tmp_path).weight.detach().mean()) == 5.0
    assert float(cached(_linear(), RECIPE, _never, tmp_path).weight.detach().mean()) == 5.0


def test_failed_training_leaves_nothing(tmp_path):
    def train(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(_linear(), RECIPE, train, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_processes_that_train_at_once_leave_one_whole_file(tmp_path):
    script = (
        "import sys, torch; from pathlib import Path; from torch import nn\n"
        "from bitfront.zoo.training import Recipe; from bitfront.zoo.weights_cache import cached\n"
        "recipe = Recipe('tiny', 1, 'none', steps=1, batch=1, learning_rate=0.1)\n"
        "def train(model):\n"
        "    sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.readline()\n"
        "    for parameter in model.parameters(): torch.nn.init.constant_(parameter, float(sys.argv[2]))\n"
        "cached(nn.Linear(1024, 1024), recipe, train, Path(sys.argv[1]))\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), str(value)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for value in (1, 2)
    ]
    for process in started:
        assert process.stdout.readline() == b"ready\n"
    for process in started:
        process.communicate(b"go\n", timeout=60)
        assert process.returncode == 0
    weight = cached(nn.Linear(1024, 1024), RECIPE, _never, tmp_path).weight.detach()
    assert weight.unique().tolist() in ([1.0], [2.0])
    assert len(list(tmp_path.iterdir())) == 1


def test_the_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("BITFRONT_CACHE", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("BITFRONT_CACHE")
    assert default_folder().parts[-3:] == (".cache", "bitfront", "zoo")


def test_training_is_reproducible_and_leaves_the_global_generator_alone():
    recipe = dataclasses.replace(RECIPE, steps=5)

    def run() -> torch.Tensor:
        model = _linear()
        fit(
            model,
            recipe,
            lambda generator: (torch.randn(4, 3, generator=generator), torch.zeros(4, 2)),
            nn.functional.mse_loss,
        )
        return model.weight.detach()

    before = torch.random.get_rng_state()
    assert torch.equal(run(), run())
    assert torch.equal(torch.random.get_rng_state(), before)
