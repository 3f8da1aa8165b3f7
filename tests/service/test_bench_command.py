"""``bitfront bench build`` as a user runs it: files, options, kill and resume."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from bitfront.search import load_bench
from bitfront.service.bench_build import bench_folder
from bitfront.service.cli import main
from bitfront.service.job import parse_job

HERE = Path(__file__).parent


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tiny_factory.py").write_text((HERE / "tiny_factory.py").read_text())
    generator = np.random.default_rng(0)
    for name in ("calib", "val"):
        np.savez(tmp_path / f"{name}.npz", inputs=generator.normal(size=(16, 3, 8, 8)).astype("float32"))
    write(tmp_path, "tiny")
    return tmp_path


def write(folder, function, **arguments):
    job = {
        "name": "tiny net",
        "model": {"factory": f"tiny_factory:{function}", "arguments": arguments},
        "data": {"calibration": "calib.npz", "validation": "val.npz", "batch": 8},
        "space": {"formats": ["w2", "w4", "w8", "w8a8"]},
        "quantization": {"bias_correction": True},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))


@pytest.fixture
def command(folder, monkeypatch, capsys):
    """Runs ``bitfront`` in this process: exit code, standard output, standard error."""

    def run(*arguments):
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["bitfront", *arguments])
            patch.setattr(sys, "path", list(sys.path))
            patch.delitem(sys.modules, "tiny_factory", raising=False)
            patch.setattr("logging.disable", lambda level: None)
            patch.setattr("warnings.simplefilter", lambda *given: None)
            with pytest.raises(SystemExit) as stopped:
                main()
        shown = capsys.readouterr()
        return stopped.value.code, shown.out, shown.err

    return run


def test_a_bench_is_built_told_and_read_back(command, folder):
    code, out, err = command("bench", "build", "job.yaml", "--evaluations", "12", "--executor", "local")
    assert code == 0, err
    for text in ("out/bench/tiny-net: 12 configurations of tiny net", "measured  kl", "statistics for formulas"):
        assert text in out
    bench = load_bench(folder / "out/bench/tiny-net")
    assert len(bench) == 12
    assert bench.details["recipe"]["bias_correction"] is True
    code, out, err = command(
        "bench", "build", "job.yaml", "--evaluations", "12", "--vary", "weights", "--out", "weights", "--json",
        "--executor", "local",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    weights = load_bench(folder / "weights")
    assert (found["out"], found["configurations"], found["digest"]) == ("weights", 12, weights.digest)
    assert weights.details["vary"] == "weights"
    assert not any("a8" in name for each in weights.configurations for name in each.values())


def test_bad_options_are_one_line_and_nothing_is_loaded(command, folder):
    (folder / "tiny_factory.py").unlink()  # loading the model would fail in another way
    (folder / "file").write_text("")
    for options, message in (
        (("--vary", "biases"), "choose both, weights or activations"),
        (("--evaluations", "2"), "at least 3"),
        (("--out", "file"), "is a file; give a folder"),
        (("--executor", "slurm"), "choose ray or local"),
    ):
        code, out, err = command("bench", "build", "job.yaml", *options)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1


def test_a_folder_is_named_after_the_job():
    assert bench_folder(parse_job({"model": {"zoo": "minilm_l6"}})) == Path("out/bench/minilm_l6")
    named = parse_job({"name": "../my net", "model": {"zoo": "minilm_l6"}})
    assert bench_folder(named) == Path("out/bench/my-net")


def rows(folder):
    database = folder / ".bitfront" / "store.db"
    if not database.exists():
        return {}
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        try:
            return dict(connection.execute("select configuration, created_at from evaluations"))
        except sqlite3.OperationalError:  # the tables are not there yet
            return {}


def test_a_killed_build_goes_on_and_measures_nothing_twice(command, folder):
    """SIGKILL in the middle, the same command again: what was committed stays, only the rest is measured."""
    write(folder, "slow", seconds=0.1)
    build = ("bench", "build", "job.yaml", "--evaluations", "20", "--out", "bench", "--executor", "local")
    running = subprocess.Popen(
        [Path(sys.executable).with_name("bitfront"), *build],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while len(rows(folder)) < 3:
        assert running.poll() is None, "the build ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)  # polls the database; the assertion does not depend on it
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    before = rows(folder)
    assert 3 <= len(before) < 21
    assert not (folder / "bench").exists()
    code, _, err = command(*build)
    assert code == 0, err
    after = rows(folder)
    assert len(after) == 21  # the float model too
    assert {key: after[key] for key in before} == before  # the very same rows: nothing was written again
    known = int(re.search(r"(\d+) of 21 already in the store", err)[1])
    assert len(before) <= known < 21  # the last commit may show only when the database is opened for writing
    assert len(load_bench(folder / "bench")) == 20
