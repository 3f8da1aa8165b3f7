"""The small family on the digits, made once for all tests of the joint search."""

import runpy
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cases():
    """What ``joint_cases.py`` defines."""
    return runpy.run_path(str(Path(__file__).parent / "joint_cases.py"), run_name="joint_cases")


@pytest.fixture(scope="session")
def digits(cases):
    """The family: 13 architectures cut out of one trained network."""
    return cases["Digits"]()


@pytest.fixture(scope="session")
def digits_task(cases):
    """Cross-entropy on samples that were not trained on."""
    return cases["task"]("loss")
