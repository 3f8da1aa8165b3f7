"""`bitfront serve` as real processes: a job to its files, draining, workers that die, servers that die."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from bitfront.service.client import Client
from bitfront.service.verbs.supervisor import Program, Supervisor

HERE = Path(__file__).parent
BITFRONT = Path(sys.executable).with_name("bitfront")
JOB = """\
name: tiny
model: {factory: "tiny_factory:slow", arguments: {seconds: 0.03}}
data: {calibration: calib.npz, validation: val.npz, batch: 8}
space: {formats: [w2, w4, w8, bf16]}
objectives: [quality, size_mb]
proxies: [weight_mse]
search: {evaluations: 8}
export: null
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a job, its data and its model; tokens of its servers are kept in it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("BITFRONT_TOKEN", "BITFRONT_SERVER", "BITFRONT_CONFIG", "BITFRONT_STORE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "tiny_factory.py").write_text((HERE / "tiny_factory.py").read_text())
    generator = np.random.default_rng(0)
    for name, count in (("calib", 16), ("val", 32)):
        np.savez(tmp_path / f"{name}.npz", inputs=generator.normal(size=(count, 3, 8, 8)).astype("float32"))
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path


@contextlib.contextmanager
def serving(folder, *arguments):
    """A server: its process, and what it said when it was ready."""
    command = [BITFRONT, "serve", "--port", "0", "--executor", "local", "--json", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    with (folder / "serve.err").open("a") as errors:
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells may have it ignored
        )  # fmt: skip
    workers = []
    try:
        line = process.stdout.readline()
        assert line, (folder / "serve.err").read_text()
        started = json.loads(line)
        workers = [psutil.Process(pid) for pid in started["pids"]]
        yield process, started
    finally:
        for each in [process, *workers]:
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                each.kill()
        process.wait()
        process.stdout.close()


def until(true, seconds=60):
    """Poll; the assertions do not depend on how often."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_server_drains_and_the_next_one_goes_on(folder):
    with serving(folder, "--allow-module", "tiny_factory") as (process, first):
        assert first["token"].startswith("bf_")
        kept = Path(first["token_file"])
        assert kept.stat().st_mode & 0o777 == 0o600
        assert kept.read_text().strip() == first["token"]
        (worker,) = first["pids"]
        seen = " ".join(psutil.Process(worker).cmdline()) + str(psutil.Process(worker).environ())
        assert "sqlite" not in seen
        assert first["token"] not in seen
        with Client(first["url"]) as client:
            made = client.submit(folder / "job.yaml")
            evaluated = 0
            for event in client.events(made.id):
                evaluated += event.kind == "evaluation"
                if evaluated == 3:
                    break
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)  # a service manager may send it to all of them, and again
        assert process.wait(60) == 0
        assert gone(worker)
    with serving(folder, "--allow-module", "tiny_factory") as (process, second):
        assert second["token"] is None  # shown once
        assert second["url"] != first["url"]
        with Client(second["url"]) as client:
            found = client.wait(made.id, timeout=120)
            assert (found.state, found.attempt) == ("succeeded", 1), found.reason  # being drained is no attempt
            assert [each["type"] for each in found.conditions][:3] == ["Queued", "Running", "Queued"]
            measured = [each for each in client.events(made.id) if each.kind == "evaluation"]
            keys = [(each.content["configuration"], each.content["split"]) for each in measured]
            assert len(keys) == len(set(keys))  # nothing was measured twice
            front = client.front(made.id)
            assert {"uniform-w4", "uniform-w8"} <= set(front["id"])
            best = client.solve(made.id, size_mb=float(front["size_mb"].min()))
            assert best["best"] is not None
            written = {each.name for each in client.artifacts(made.id)}
            assert {"front.json", "best.json", "report.html", "run.log"} <= written
            path = client.download(made.id, "front.json", folder / "fetched.json")
            assert json.loads(path.read_text())["name"] == "tiny"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert first["token"] not in (folder / "serve.err").read_text()


def test_a_worker_that_dies_is_started_again_and_ends_with_its_server(folder):
    with serving(folder) as (process, started), Client(started["url"]) as client:
        (one,) = until(client.workers)
        os.kill(started["pids"][0], signal.SIGKILL)
        other = until(lambda: [each for each in client.workers() if each["id"] != one["id"]])[0]
        pid = int(other["id"].split("-")[-2])
        assert "worker 1 ended with -9; started again in" in (folder / "serve.err").read_text()
        process.kill()  # kill -9 of the server: its worker drains by itself
        until(lambda: gone(pid))


def test_a_supervisor_ends_what_does_not_end_by_itself(capfd):
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    supervisor = Supervisor([Program("a program", ("-c", stubborn)), Program("another", ("-c", "input()"), "line\n")])
    supervisor.start()
    deaf, _ = supervisor.pids
    until(lambda: "deaf" in capfd.readouterr().err)
    supervisor.stop()
    supervisor.join(0.5)
    assert gone(deaf)
    assert "a program did not end within 0.5 s and is killed" in capfd.readouterr().err
    assert all(gone(pid) for pid in supervisor.pids)
