"""The benches of ``evolution_cases.py`` as fixtures: tests are no package, so it is loaded by its path."""

import runpy
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("evolution_cases.py")
_LOADED = runpy.run_path(str(CASES))


@pytest.fixture(scope="session")
def bench():
    """Makes a bench."""
    return _LOADED["bench"]


@pytest.fixture(scope="session")
def statistics_of():
    """Makes statistics of named sites and formats."""
    return _LOADED["statistics_of"]


@pytest.fixture(scope="session")
def table_of():
    """Makes the table of a product of tensors and the error."""
    return _LOADED["table_of"]
