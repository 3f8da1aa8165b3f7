"""Entries that the zoo trains itself, trained once a session into a fresh cache."""

import pytest
from bitfront import zoo


@pytest.fixture(scope="session")
def zoo_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("zoo-cache")


@pytest.fixture(scope="session")
def char_gpt(zoo_cache):
    steps = []
    entry = zoo.load("char_gpt", cache=zoo_cache, progress=lambda *step: steps.append(step))
    return entry, steps


@pytest.fixture(scope="session")
def digits(zoo_cache):
    steps = []
    entry = zoo.load("digits_resnet20", cache=zoo_cache, progress=lambda *step: steps.append(step))
    return entry, steps
