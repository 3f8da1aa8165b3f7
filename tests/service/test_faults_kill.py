"""kill -9 at random moments of a server, its worker and the process of its job: nothing is lost or done twice.

Beside it: a log on a full disk. ``benchmarks/faults.py`` does more rounds, on PostgreSQL, with several workers, jobs
and actors of Ray.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from bitfront.service.client import Client
from bitfront.service.settings import Settings
from bitfront.service.worker import JobWorker
from bitfront.store import Artifacts, Evaluation, Limits, Queue, Store, Submission
from sqlalchemy import select

BITFRONT = Path(sys.executable).with_name("bitfront")
EVALUATIONS = 10
VICTIMS = ["job", "worker", "server", "job", "worker"]
FACTORY = '''
"""Every execution of a candidate is a line with its time in a file beside this one, appended before it begins."""
import os, time
from pathlib import Path
import torch
from bitfront.evaluators import FakeQuantEvaluator
from torch import nn

evaluate = FakeQuantEvaluator.evaluate_many

def noted(self, configurations, split="validation", *more, **named):
    for each in configurations:
        with Path(__file__).with_name("executions").open("a") as stream:
            stream.write(f"{each.digest} {split} {time.time():.6f}\\n")
    return evaluate(self, configurations, split, *more, **named)

FakeQuantEvaluator.evaluate_many = noted

class Wait(nn.Module):
    def forward(self, x):
        time.sleep(0.08)
        return x

def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5), Wait(),
    )
'''
JOB = {
    "name": "small",
    "model": {"factory": "faulty_factory:network"},
    "data": {"calibration": "c.npz", "validation": "v.npz", "batch": 16},
    "space": {"formats": ["w2", "w4", "w8"]},
    "objectives": ["quality", "size_mb"],
    "proxies": ["weight_mse"],
    "search": {"evaluations": EVALUATIONS},
    "export": None,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A factory, its data, a job; tokens of servers are kept in it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("BITFRONT_TOKEN", "BITFRONT_SERVER", "BITFRONT_CONFIG", "BITFRONT_STORE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "faulty_factory.py").write_text(FACTORY)
    draw = np.random.default_rng(0)
    for name in ("c", "v"):
        np.savez(tmp_path / f"{name}.npz", inputs=draw.standard_normal((32, 3, 8, 8), dtype=np.float32))
    (tmp_path / "job.yaml").write_text(json.dumps(JOB))
    return tmp_path


def until(true, seconds=120.0):
    """Poll; what is asserted does not depend on how often."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def executions(folder):
    path = folder / "executions"
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [((digest, split), float(moment)) for digest, split, moment in lines]


def committed(store):
    with store.session() as session:
        return {
            (row.configuration, row.split): (row.value, row.worker, row.created_at.timestamp())
            for row in session.scalars(select(Evaluation))
        }


def front(path):
    points = json.loads(path.read_text())["points"]
    return [[each["id"], each["digest"], each["pareto"], each["measured"]["validation"]["value"]] for each in points]


def run_here(folder, store, outputs, limits):
    """A worker in this process runs the next job."""
    settings = Settings(store=store.url, outputs=str(outputs), executor="local", limits=limits)
    worker = JobWorker(settings)
    try:
        assert worker.run_once()
    finally:
        worker.close()


def started(folder):
    """A server with one worker: its process and what it said."""
    with (folder / "serve.err").open("a") as errors:
        process = subprocess.Popen(
            [BITFRONT, "serve", "--json", "--config", folder / "service.yaml"], cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=errors, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": folder},
        )  # fmt: skip
    with process.stdout as stream:
        line = stream.readline()
    assert line, (folder / "serve.err").read_text()
    return process, json.loads(line)


def below(process, name):
    """The processes below a server whose command holds a name."""
    found = []
    for each in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found += [each] if name in " ".join(each.cmdline()) else []
    return found


def test_five_kills_lose_nothing_and_repeat_nothing_that_was_committed(folder):
    moments, victims = random.Random(0), list(VICTIMS)
    moments.shuffle(victims)
    limits = {"lease_seconds": 3.0, "back_off": 0.0}
    settings = {"store": f"sqlite:///{folder}/store.db", "port": 0, "executor": "local", "limits": limits}
    (folder / "service.yaml").write_text(json.dumps({**settings, "allowed_modules": ["faulty_factory"]}))
    server, said = started(folder)
    store, seen = Store(settings["store"]), {}
    try:
        with Client(said["url"]) as client:
            job_id = client.submit(folder / "job.yaml", attempts=20).id
        for kind in victims:
            ran = len(executions(folder))
            until(lambda ran=ran: len(executions(folder)) > ran)
            time.sleep(moments.uniform(0.0, 0.4))
            name = {"worker": "worker_process", "job": "bitfront.service.worker.child"}.get(kind)
            for victim in [server] if name is None else below(server, name):
                victim.kill()
            if kind == "server":
                server.wait()
                server, said = started(folder)
            found = committed(store)
            assert {key: found[key] for key in seen} == seen
            seen = found
        until(lambda: Queue(store).job(job_id).state not in ("queued", "running"))
        job = Queue(store).job(job_id)
        assert (job.state, 2 <= job.attempt <= 6) == ("succeeded", True), job.reason
        with Client(said["url"]) as client:
            written = front(client.download(job_id, "front.json", folder / "front.json"))
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in [*psutil.Process(server.pid).children(recursive=True), server]:
                each.kill()
        server.wait()
    end, ran = committed(store), executions(folder)
    assert {key: end[key] for key in seen} == seen
    assert {key for key, _ in ran} == set(end)
    assert [key for key, moment in ran if moment > end[key][-1]] == []
    calm = Store(f"sqlite:///{folder}/calm.db")
    Queue(calm).submit(Submission("small", {**JOB, "folder": str(folder)}))
    run_here(folder, calm, folder / "calm", Limits(lease_seconds=60.0))
    (undisturbed,) = (folder / "calm").glob("*/front.json")
    assert front(undisturbed) == written
    assert {key: row[0] for key, row in committed(calm).items()} == {key: row[0] for key, row in end.items()}
    for each in (store, calm):
        each.close()


def test_a_log_on_a_full_disk_fails_the_attempt_with_the_reason_and_the_next_one_goes_on(folder):
    store = Store(f"sqlite:///{folder}/store.db")
    queue, limits = Queue(store), Limits(lease_seconds=60.0, back_off=0.0)
    job_id = queue.submit(Submission("small", {**JOB, "folder": str(folder)}))[0].id
    out = folder / "jobs" / job_id
    out.mkdir(parents=True)
    (out / "run.log").symlink_to("/dev/full")
    run_here(folder, store, folder / "jobs", limits)
    job = queue.job(job_id)
    assert job.state == "queued"
    assert "No space left on device" in job.reason
    assert "\n" not in job.reason
    (out / "run.log").unlink()
    run_here(folder, store, folder / "jobs", limits)
    assert (queue.job(job_id).state, queue.job(job_id).attempt) == ("succeeded", 2)
    assert {"front.json", "run.log"} <= {file.name for file in Artifacts(store).of(job_id)}
    store.close()
