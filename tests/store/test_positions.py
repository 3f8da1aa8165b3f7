"""The numbers of candidates: given in the order of proposal, and to those of older schemas afterwards."""

import sqlite3
from importlib import import_module
from pathlib import Path

import pytest
from bitfront.space import Configuration
from bitfront.store import Candidate, Store
from sqlalchemy import text, update

NAMES = [f"w{bits}" for bits in (8, 2, 6, 4, 3, 5)]


def configurations(*names):
    return [(Configuration.from_dict({"a": name}), "test", None) for name in names]


def order(store, job_id):
    return [(row.formats["a"], row.position) for row in store.candidates(job_id)]


@pytest.fixture
def store(url):
    store = Store(url)
    yield store
    store.close()


def test_candidates_are_numbered_as_they_come_and_known_ones_keep_their_number(store):
    one, other = (store.open_job(name, {}, "out") for name in ("one", "other"))
    store.add_candidates(one, configurations("w8", "w2"))
    store.add_candidates(other, configurations("w2"))
    store.add_candidates(one, configurations("w2", "w6", "w8", "w4"))
    store.add_candidates(one, [])
    found = order(store, one)
    assert [name for name, _ in found] == ["w8", "w2", "w6", "w4"]
    assert [position for _, position in found] == sorted({position for _, position in found})
    assert found[:2] == [("w8", 1), ("w2", 2)]
    assert order(store, other) == [("w2", 1)]


def test_candidates_without_numbers_get_those_of_their_times(store):
    job, other = store.open_job("one", {}, "out"), store.open_job("other", {}, "out")
    for name in NAMES:
        store.add_candidates(job, configurations(name))
    store.add_candidates(other, configurations(*NAMES[:2]))
    with store.writing() as session:
        session.execute(update(Candidate).values(position=0))
        session.execute(text(import_module("bitfront.store.migrations.versions.0005_pages")._NUMBER))
    assert order(store, job) == [(name, number) for number, name in enumerate(NAMES, start=1)]
    assert [position for _, position in order(store, other)] == [1, 2]


def test_an_older_file_is_numbered_when_it_is_opened(tmp_path):
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.executescript((Path(__file__).parent / "schemas" / "0004.sql").read_text())
        for number, name in enumerate(NAMES[::-1]):
            row = (
                "0123456789ab",
                f"d{name}",
                f'{{"a": "{name}"}}',
                "test",
                None,
                f"2025-01-0{9 - number} 10:00:00.000000",
            )
            connection.execute("INSERT INTO candidates VALUES (?, ?, ?, ?, ?, ?)", row)
    store = Store(f"sqlite:///{tmp_path}/store.db")
    names = [name for name, _ in order(store, "0123456789ab")]
    assert names[: len(NAMES)] == NAMES
    assert [position for _, position in order(store, "0123456789ab")] == list(range(1, len(NAMES) + 2))
    store.close()
