"""Scored formulas in the store: what a killed evolution takes up again."""

import subprocess
import sys

import pytest
from alembic import command
from alembic.config import Config
from bitfront.store import Store, open_engine

DONE = {
    "digest": "d1",
    "expression": "mean(square(error))",
    "size": 3,
    "signature": "s1",
    "fitness": 0.5,
    "details": {"orientation": -1, "correlations": [0.5, 0.25]},
    "reason": "",
    "seconds": 0.01,
}
SCREENED = {**DONE, "digest": "d0", "fitness": None, "details": {}, "reason": "ranks as d1", "seconds": 0.002}


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/store.db"


def test_they_are_read_back_by_a_new_process(url):
    Store(url).save_formulas("ctx", [DONE, SCREENED])
    script = "import sys; from bitfront.store import Store; print(Store(sys.argv[1]).formulas('ctx'))"
    shown = subprocess.run([sys.executable, "-c", script, url], check=True, capture_output=True, text=True).stdout
    assert shown.strip() == str([SCREENED, DONE])
    assert Store(url).formulas("another") == []


def test_a_screened_one_is_completed_and_a_complete_one_stays(url):
    store = Store(url)
    store.save_formulas("ctx", [SCREENED])
    store.save_formulas("ctx", [])
    completed = {**SCREENED, "fitness": 0.25, "reason": "", "details": {"orientation": 1}, "seconds": 1.0}
    store.save_formulas("ctx", [completed, DONE])
    store.save_formulas("ctx", [{**completed, "fitness": 9.0}, SCREENED, {**DONE, "fitness": None}])
    assert Store(url).formulas("ctx") == [completed, DONE]


def test_the_migration_goes_back(url):
    from pathlib import Path

    import bitfront.store
    from sqlalchemy import inspect

    engine = open_engine(url)
    config = Config()
    config.set_main_option("script_location", str(Path(bitfront.store.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    assert "formulas" not in inspect(engine).get_table_names()
    assert "evaluations" in inspect(engine).get_table_names()
    engine.dispose()
