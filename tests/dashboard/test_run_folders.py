"""Runs are found below the given folders only, and a broken one is told, not raised."""

import json
import os
import runpy
from pathlib import Path

import pytest
from bitfront.dashboard import PATHS_VARIABLE
from bitfront.dashboard.run_folders import find_runs, read_run, roots

MAKE = runpy.run_path(str(Path(__file__).parents[1] / "front_documents.py"))["front_document"]


def _run(folder: Path, content: str | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "front.json").write_text(json.dumps(MAKE(points=14)) if content is None else content)
    return folder


def test_finds_nested_runs_in_order(tmp_path):
    for name in ("b", "a", "group/c", "group/deep/too/far", ".hidden"):
        _run(tmp_path / "out" / name)
    (tmp_path / "out" / "started").mkdir()
    (tmp_path / "out" / "started" / "run.log").touch()
    (tmp_path / "out" / "no_run").mkdir()
    keys = [run.key for run in find_runs([tmp_path / "out", tmp_path / "missing"])]
    assert keys == ["out/a", "out/b", "out/group/c", "out/started"]


def test_a_run_can_be_given_itself(tmp_path):
    assert [run.key for run in find_runs([_run(tmp_path / "demo")])] == ["demo"]


def test_equal_names_stay_apart_and_one_folder_counts_once(tmp_path):
    one, two = _run(tmp_path / "x" / "demo"), _run(tmp_path / "y" / "demo")
    assert [run.key for run in find_runs([one, two, one])] == ["demo", "demo (2)"]


def test_links_do_not_lead_out(tmp_path):
    secret = _run(tmp_path / "secret")
    (tmp_path / "out" / "leak").mkdir(parents=True)
    (tmp_path / "out" / "folder").symlink_to(secret)
    (tmp_path / "out" / "leak" / "front.json").symlink_to(secret / "front.json")
    assert find_runs([tmp_path / "out"]) == []


def test_states(tmp_path):
    _run(tmp_path / "out" / "whole")
    _run(tmp_path / "out" / "half", json.dumps(MAKE())[:500])
    _run(tmp_path / "out" / "later", '{"schema_version": 9}')
    (tmp_path / "out" / "started").mkdir()
    (tmp_path / "out" / "started" / "run.log").touch()
    states = {run.key: read_run(run) for run in find_runs([tmp_path / "out"])}
    assert {key: state.state for key, state in states.items()} == {
        "out/whole": "finished",
        "out/half": "broken",
        "out/later": "broken",
        "out/started": "no front yet",
    }
    assert "half-written" in states["out/half"].reason
    assert "schema_version is 9" in states["out/later"].reason
    assert len(states["out/whole"].front.points) == 14


def test_a_run_without_points_is_read(tmp_path):
    document = MAKE()
    document |= {"points": [], "best": None}
    run = find_runs([_run(tmp_path / "empty", json.dumps(document))])[0]
    assert read_run(run).front.points == ()


@pytest.mark.parametrize(("given", "expected"), [(None, ["out"]), (os.pathsep.join("ab"), ["a", "b"]), ("", [])])
def test_roots_come_from_the_environment(monkeypatch, given, expected):
    monkeypatch.delenv(PATHS_VARIABLE, raising=False)
    if given is not None:
        monkeypatch.setenv(PATHS_VARIABLE, given)
    assert roots() == [Path(name) for name in expected]
