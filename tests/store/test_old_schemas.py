"""Stores that every released schema left behind are brought up to date, with what is in them."""

import sqlite3
from pathlib import Path

import pytest
from bitfront.store import Store

SCHEMAS = sorted((Path(__file__).parent / "schemas").glob("*.sql"))


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda path: path.stem)
def test_a_stored_file_of_an_older_schema_is_brought_up_to_date(schema, tmp_path):
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.executescript(schema.read_text())
    store = Store(f"sqlite:///{tmp_path}/store.db")
    (job,) = store.jobs()
    assert (job.id, job.state, job.owner, job.priority, job.epoch, job.local) == (
        "0123456789ab",
        "paused",
        "",
        0,
        0,
        True,
    )
    assert (job.needs, job.progress, job.record, job.submission) == ([], {}, {}, None)
    assert [(each.configuration, each.origin) for each in store.candidates(job.id)] == [("c0ffee", "uniform")]
    assert store.kernels("cpu") == [{}]
    assert store.open_job("demo", {"name": "demo"}, "out/demo") == job.id


def test_there_is_a_file_for_every_schema_but_the_newest():
    versions = Path(__file__).parents[2] / "store" / "migrations" / "versions"
    released = sorted(path.name[:4] for path in versions.glob("0*.py"))
    assert [path.stem for path in SCHEMAS] == released[:-1]
