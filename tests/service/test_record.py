"""The record of a job: what it holds, what changes it, and that no secret gets in."""

import json
import os
import re
import subprocess

import numpy as np
import pytest
import yaml
from bitfront.errors import InvalidInput
from bitfront.service import read_job, record
from bitfront.store import Store


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "recorded_factory.py").write_text("def make():\n    return None\n")
    for name in ("calib", "val"):
        np.savez(tmp_path / f"{name}.npz", inputs=np.zeros((2, 3), dtype="float32"))
    return tmp_path


def taken(folder, **changes):
    job = {
        "model": {"factory": "recorded_factory:make"},
        "data": {"calibration": "calib.npz", "validation": "val.npz"},
        "search": {"seed": 7},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job | changes))
    return record.of(*read_job(folder / "job.yaml"))


def test_a_record_is_plain_data_and_the_same_twice(folder):
    found = taken(folder)
    assert json.loads(json.dumps(found)) == found == taken(folder)
    assert found["seed"] == 7
    assert {"bitfront", "python", "torch", "numpy", "ray", "optuna", "onnxruntime"} <= set(found["versions"])
    assert found["threads"]["torch"] >= 1
    assert found["hardware"]["cores"] >= 1
    assert found["device"]["name"] == "cpu"
    assert set(found["inputs"]) == {"model.factory", "data.calibration", "data.validation"}


def test_the_digests_are_those_of_the_content(folder):
    before = taken(folder)
    np.savez(folder / "val.npz", inputs=np.ones((2, 3), dtype="float32"))
    (folder / "recorded_factory.py").write_text("def make():\n    return 1\n")
    after = taken(folder)
    differing = {name for name in before["inputs"] if before["inputs"][name] != after["inputs"][name]}
    assert differing == {"model.factory", "data.validation"}
    assert before["specification"] == after["specification"] != taken(folder, quality="loss")["specification"]
    (folder / "val.npz").unlink()
    with pytest.raises(InvalidInput, match=r"data\.validation: no file"):
        taken(folder)


def test_only_known_variables_of_the_environment_are_recorded(folder, monkeypatch):
    for name in ("BITFRONT_TOKEN", "AWS_SECRET_ACCESS_KEY", "BITFRONT_STORE", "PGPASSWORD", "OMP_SECRET"):
        monkeypatch.setenv(name, "hush-hush")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = taken(folder)
    assert found["environment"]["OMP_NUM_THREADS"] == "3"
    assert set(found["environment"]) <= set(record.VARIABLES)
    assert "hush-hush" not in json.dumps(found)
    assert not [name for name in record.VARIABLES if re.search("TOKEN|SECRET|KEY|PASS|STORE", name)]


def git(folder, *arguments):
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_source_is_told_by_content_commit_and_cleanliness(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "_ROOT", tmp_path)
    read = record.source.__wrapped__
    (tmp_path / "tests").mkdir()
    (tmp_path / "a.py").write_text("a = 1\n")
    installed = read()
    assert set(installed) == {"digest"}  # no checkout
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-q", "-m", "a")
    clean = read()
    assert clean == {**installed, "commit": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "tests" / "test_a.py").write_text("")
    assert read() == clean
    (tmp_path / "a.py").write_text("a = 2\n")
    assert (read()["dirty"], read()["digest"] != clean["digest"]) == (True, True)
    monkeypatch.setenv("PATH", os.devnull)
    assert read()["commit"] is None
    assert "git" in read()["unknown"]


def test_a_record_is_merged_into_the_job(url):
    store = Store(url)
    with store.running_job("demo", {}, "out") as job_id:
        store.add_record(job_id, {"seed": 1, "versions": {"torch": "1"}})
        store.add_record(job_id, {"seed": 2, "search": {}})
    assert store.jobs()[0].record == {"seed": 2, "versions": {"torch": "1"}, "search": {}}
    with pytest.raises(InvalidInput, match="no job 'nothing'"):
        store.add_record("nothing", {})
    store.close()
