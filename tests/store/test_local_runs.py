"""Runs that no worker claims: their lease, their end, and what becomes of them when they are killed or sleep."""

import signal
import subprocess
import sys
import time

import pytest
from bitfront.errors import Conflict
from bitfront.store import Claims, Queue, Store, Submission, local_runs

SCRIPT = """
import sys, time
from bitfront.store import Store, local_runs
local_runs.LEASE_SECONDS = float(sys.argv[2])
with Store(sys.argv[1]).running_job("demo", {"seed": 0}, "out/demo") as job_id:
    print(job_id, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def store(url):
    store = Store(url)
    yield store
    store.close()


def start(url, lease_seconds):
    """A run in a process of its own, and the id of its job."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, url, str(lease_seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process, process.stdout.readline().strip()


def told(store, job_id):
    return [(each.type, each.reason) for each in Queue(store).conditions(job_id)]


def eventually(true, seconds=30.0):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_run_ends_as_its_block_does(store, url):
    with store.running_job("demo", {"seed": 0}, "out") as job_id:
        job = Queue(Store(url)).job(job_id)
        assert (job.state, job.local, job.lease_until > job.beat_at) == ("running", True, True)
    assert Queue(store).job(job_id).state == "succeeded"
    with pytest.raises(ValueError, match="no data"), store.running_job("demo", {"seed": 1}, "out") as job_id:
        raise ValueError("no data")
    job = Queue(store).job(job_id)
    assert (job.state, job.reason, job.worker, job.lease_until) == ("failed", "no data", "", None)
    with pytest.raises(KeyboardInterrupt), store.running_job("demo", {"seed": 1}, "out") as again:
        raise KeyboardInterrupt
    job = Queue(store).job(again)
    assert (again, job.state, job.attempt) == (job_id, "paused", 2)
    assert told(store, job_id) == [
        ("Running", "Started"), ("Failed", "Failed"), ("Running", "Started"), ("Paused", "Stopped")
    ]  # fmt: skip


def test_a_killed_run_is_seen_to_be_dead_and_not_queued(store, url):
    process, job_id = start(url, 1.0)
    time.sleep(1.5)
    claims = Claims(store)
    assert claims.recover() == 0  # it has given signs of life
    process.kill()
    process.wait()
    eventually(lambda: claims.recover() == 1)
    job = Queue(store).job(job_id)
    assert job.state == "paused"
    assert "run it again to go on" in job.reason
    assert claims.claim("w") is None
    with pytest.raises(Conflict, match="bitfront run"):
        Queue(store).resume(job_id)


def test_the_same_command_goes_on_at_once_where_it_was_killed(store, url):
    process, job_id = start(url, 300.0)
    process.kill()
    process.wait()
    with store.running_job("demo", {"seed": 0}, "out/demo") as again:
        assert again == job_id  # although its lease would last minutes
        with store.running_job("demo", {"seed": 0}, "out/demo") as beside:
            assert beside != job_id  # two that live are two jobs
    assert {job.state for job in store.jobs()} == {"succeeded"}


def test_a_job_of_the_queue_is_not_taken_up_by_a_local_run(store):
    job, _ = Queue(store).submit(Submission("demo", {"seed": 0}))
    with store.running_job("demo", {"seed": 0}, "") as local:
        assert local != job.id
    assert Queue(store).job(job.id).state == "queued"


@pytest.mark.parametrize(("verb", "state"), [("pause", "paused"), ("cancel", "cancelled")])
def test_a_run_can_be_stopped_from_outside(store, url, verb, state):
    process, job_id = start(url, 0.4)
    getattr(Queue(store), verb)(job_id, "ann")
    process.wait(30)
    assert process.returncode == -signal.SIGINT
    assert Queue(store).job(job_id).state == state


def test_a_run_that_slept_takes_its_job_back(store, monkeypatch):
    monkeypatch.setattr(local_runs, "LEASE_SECONDS", 0.4)
    monkeypatch.setattr(local_runs, "_BEATS_PER_LEASE", 0.4)  # the first sign comes after a second: it slept
    with store.running_job("demo", {}, "out") as job_id:
        eventually(lambda: Claims(store).recover() == 1)
        assert Queue(store).job(job_id).state == "paused"
        eventually(lambda: Queue(store).job(job_id).state == "running")
    assert ("Running", "Back") in told(store, job_id)
    assert Queue(store).job(job_id).state == "succeeded"


def test_no_sign_of_life_comes_after_the_end(store):
    run = local_runs._LocalRun(store, "demo", {}, "out")
    assert run._sign() == ""
    run.end("paused", "Stopped", "stopped")
    assert run._sign() is None
    assert Queue(store).job(run.job_id).state == "paused"


def test_a_run_whose_job_was_started_again_leaves_it_alone(store, url, monkeypatch):
    monkeypatch.setattr(local_runs, "LEASE_SECONDS", 0.2)
    monkeypatch.setattr(local_runs, "_BEATS_PER_LEASE", 0.02)  # never gives a sign
    with store.running_job("demo", {}, "out") as job_id:
        time.sleep(0.3)
        with store.running_job("demo", {}, "out") as again:
            assert again == job_id
            epoch = Queue(store).job(job_id).epoch
        assert Queue(store).job(job_id).state == "succeeded"
    job = Queue(store).job(job_id)
    assert (job.state, job.epoch) == ("succeeded", epoch + 1)
