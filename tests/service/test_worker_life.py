"""Jobs under a worker: processes that succeed, fail, crash, hang, grow, are stopped, killed, or wake up too late."""

import contextlib
import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from bitfront.errors import NotFound
from bitfront.service.settings import Settings
from bitfront.service.worker import JobWorker
from bitfront.store import Events, Limits, Queue, Store, Submission, Workers

PROGRAM = (str(Path(__file__).with_name("stand_in_job.py")),)
QUICK = Limits(lease_seconds=60.0, back_off=0.0)
SERVE = """
import signal, sys, threading
from bitfront.service.settings import Settings
from bitfront.service.worker import JobWorker
from bitfront.store import Limits
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
limits = Limits(lease_seconds=float(sys.argv[2]), back_off=0.0)
JobWorker(Settings(store=sys.argv[1], limits=limits), sys.argv[3:]).serve(stop)
"""


@pytest.fixture
def settings(tmp_path):
    return Settings(
        store=f"sqlite:///{tmp_path}/store.db", outputs=f"{tmp_path}/jobs", limits=QUICK, grace_seconds=30.0
    )


@pytest.fixture
def queue(settings):
    store = Store(settings.store)
    yield Queue(store)
    store.close()


def submit(queue, *do, folder="", **more):
    """A job that does this in its first attempt, that in its second, and the last ever after."""
    specification = {"name": "stand in", "do": list(do), "folder": str(folder)}
    return queue.submit(Submission("stand in", specification, owner="ann", **more))[0].id


def once(settings):
    worker = JobWorker(settings, PROGRAM)
    try:
        return worker.run_once()
    finally:
        worker.close()


def told(queue, job_id):
    return [(each.type, each.reason) for each in queue.conditions(job_id)]


def eventually(true, seconds=120.0):
    until = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


class Serving:
    """A worker in a thread of this process."""

    def __init__(self, settings):
        self.worker, self.stop = JobWorker(settings, PROGRAM), threading.Event()
        self.thread = threading.Thread(target=self.worker.serve, args=(self.stop,))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.stop.set()
        self.thread.join()


def serving(settings, lease_seconds):
    """A worker in a process of its own."""
    return subprocess.Popen([sys.executable, "-c", SERVE, settings.store, str(lease_seconds), *PROGRAM])


def test_success(settings, queue):
    job_id = submit(queue, "succeed")
    assert once(settings)
    job = queue.job(job_id)
    assert (job.state, job.reason, job.worker, job.attempt) == ("succeeded", "all is well", "", 1)
    assert told(queue, job_id) == [("Queued", "Submitted"), ("Running", "Claimed"), ("Succeeded", "Done")]
    assert not once(settings)


def test_bad_input_is_not_tried_again(settings, queue):
    job_id = submit(queue, "refuse")
    once(settings)
    assert (queue.job(job_id).state, queue.job(job_id).reason) == ("failed", "no such model")


def test_failures_and_crashes_are_tried_again_until_no_attempt_is_left(settings, queue):
    job_id = submit(queue, "fail", "segfault", most_attempts=2)
    once(settings)
    assert (queue.job(job_id).state, queue.job(job_id).reason) == ("queued", "something went wrong")
    once(settings)
    job = queue.job(job_id)
    assert (job.state, job.attempt) == ("failed", 2)
    assert "SIGSEGV" in job.reason
    lines = [each.content["line"] for each in Events(queue.store).after(job_id, kinds=["log"])]
    assert lines == ["the last words, with postgresql://ann:***@host/db"]


def test_an_attempt_without_a_database_does_not_count(settings, queue):
    job_id = submit(queue, "unavailable")
    once(settings)
    assert (queue.job(job_id).state, queue.job(job_id).attempt) == ("queued", 0)


def test_memory_is_limited(settings, queue):
    job_id = submit(queue, "hog", most_attempts=1)
    once(dataclasses.replace(settings, most_memory_bytes=400_000_000))
    job = queue.job(job_id)
    assert job.state == "failed"
    assert "GB of memory, allowed are 0.40" in job.reason


def test_a_ray_actor_that_is_to_blame_for_the_memory_dies_alone(settings, queue):
    job_id = submit(queue, "hog_in_actor")
    once(dataclasses.replace(settings, most_memory_bytes=400_000_000))
    assert (queue.job(job_id).state, queue.job(job_id).reason) == ("succeeded", "its actor ended with -9")


def test_a_job_sees_the_gpus_that_it_was_given(settings, queue, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    job_id = submit(queue, "look", folder=tmp_path, gpus=2)
    once(dataclasses.replace(settings, gpus=2))
    assert queue.job(job_id).state == "succeeded"
    assert json.loads((tmp_path / "seen.json").read_text())["gpus"] == "3,5"


def test_what_others_see_of_a_job_holds_no_secret(settings, queue, tmp_path, monkeypatch):
    monkeypatch.setenv("BITFRONT_STORE", "postgresql://ann:hush@host/db")
    monkeypatch.setenv("BITFRONT_TOKEN", "bf_hush")
    job_id = submit(queue, "look", folder=tmp_path)
    once(settings)
    assert queue.job(job_id).state == "succeeded"
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert "hush" not in seen["argv"] + seen["environment"]
    assert settings.store not in seen["argv"] + seen["environment"]


def test_pause_resume_and_cancel_of_a_running_job(settings, queue, tmp_path):
    quick = dataclasses.replace(settings, limits=Limits(lease_seconds=4.0, back_off=0.0))
    job_id = submit(queue, "wait", folder=tmp_path)
    with Serving(quick):
        eventually(lambda: queue.job(job_id).progress.get("stage") == "stand in")
        pid = queue.job(job_id).progress["pid"]
        queue.pause(job_id, "ann")
        eventually(lambda: queue.job(job_id).state == "paused")
        assert not psutil.pid_exists(pid)
        queue.resume(job_id, "ann")
        eventually(lambda: queue.job(job_id).progress.get("pid") != pid)
        queue.cancel(job_id, "ann")
        eventually(lambda: queue.job(job_id).state == "cancelled")
    kinds = [kind for kind, _ in told(queue, job_id)]
    assert kinds == ["Queued", "Running", "Stopping", "Paused", "Queued", "Running", "Stopping", "Cancelled"]


def test_a_job_whose_time_is_over_is_stopped(settings, queue, tmp_path):
    job_id = submit(queue, "wait", folder=tmp_path, most_seconds=0.1)
    once(settings)
    assert (queue.job(job_id).state, told(queue, job_id)[-1]) == ("failed", ("Failed", "OutOfTime"))


def test_a_job_that_does_not_listen_is_killed(settings, queue, tmp_path):
    job_id = submit(queue, "deaf", folder=tmp_path)
    with Serving(dataclasses.replace(settings, grace_seconds=0.5)):
        eventually((tmp_path / "pid").exists)
        queue.pause(job_id)
        eventually(lambda: queue.job(job_id).state == "paused")
    assert queue.job(job_id).reason == "did not stop within 0.5 s"
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_a_drained_worker_gives_its_job_back_and_takes_leave(settings, queue, tmp_path):
    job_id = submit(queue, "wait", folder=tmp_path)
    with Serving(settings) as served:
        eventually((tmp_path / "pid").exists)
        assert [each.id for each in Workers(queue.store).alive()] == [served.worker.id]
    job = queue.job(job_id)
    assert (job.state, job.attempt, told(queue, job_id)[-1]) == ("queued", 0, ("Queued", "Drained"))
    assert Workers(queue.store).alive() == []


def test_several_jobs_at_a_time_share_the_gpus(settings, queue, tmp_path):
    for number in range(3):
        (tmp_path / str(number)).mkdir()
    ids = [submit(queue, "wait", folder=tmp_path / str(number), gpus=number % 2) for number in range(2)]
    third = submit(queue, "wait", folder=tmp_path / "2", gpus=1)
    with Serving(dataclasses.replace(settings, jobs_at_a_time=3, gpus=1)) as served:
        eventually(lambda: all((tmp_path / str(number) / "pid").exists() for number in range(2)))
        time.sleep(1.5)  # longer than an idle worker waits
        assert len(served.worker._running) == 2
        assert {queue.job(each).state for each in ids} == {"running"}
        assert queue.job(third).state == "queued"


def test_killing_the_worker_kills_the_job_and_another_goes_on(settings, queue, tmp_path):
    job_id = submit(queue, "wait", "succeed", folder=tmp_path)
    worker = serving(settings, 2.0)
    eventually((tmp_path / "pid").exists)
    job = psutil.Process(int((tmp_path / "pid").read_text()))
    worker.kill()
    worker.wait()
    eventually(lambda: not job.is_running() or job.status() == psutil.STATUS_ZOMBIE)
    eventually(lambda: once(settings))
    assert queue.job(job_id).state == "succeeded"
    assert told(queue, job_id)[2] == ("Queued", "LeaseExpired")


def test_late_writes_of_a_worker_that_slept_are_refused(settings, queue, tmp_path):
    job_id = submit(queue, "wait", "succeed", folder=tmp_path)
    worker = serving(settings, 2.0)
    eventually((tmp_path / "pid").exists)
    pids = [worker.pid, int((tmp_path / "pid").read_text())]
    stop_outside_of_transactions(pids, tmp_path / "store.db")
    eventually(lambda: once(settings))
    ended, written = queue.job(job_id), scores(queue.store)
    assert (ended.state, ended.attempt) == ("succeeded", 2)
    for pid in reversed(pids):
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: not psutil.pid_exists(pids[1]))
    worker.terminate()
    assert worker.wait(60) == 0
    assert scores(queue.store) == written
    job = queue.job(job_id)
    assert (job.state, job.reason, job.epoch, job.updated_at) == (
        "succeeded",
        ended.reason,
        ended.epoch,
        ended.updated_at,
    )


def stop_outside_of_transactions(pids, path):
    """SIGSTOP; a process that is stopped while it writes to a SQLite file keeps all others from writing."""
    for _ in range(100):
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            with contextlib.closing(sqlite3.connect(path, timeout=0.05, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                return
        except sqlite3.OperationalError:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            time.sleep(0.03)
    pytest.fail("always in a transaction")


def scores(store):
    from bitfront.store import Score
    from sqlalchemy import func, select

    with store.session() as session:
        return session.scalar(select(func.count()).select_from(Score))


def test_one_job_of_a_postgresql_queue(postgres_url, tmp_path):
    from bitfront.store.base import Base

    store = Store(postgres_url)
    with store.writing() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())
    queue = Queue(store)
    job_id = submit(queue, "segfault", "succeed")
    settings = Settings(store=postgres_url, outputs=f"{tmp_path}/jobs", limits=QUICK)
    assert once(settings)
    assert once(settings)
    assert queue.job(job_id).state == "succeeded"
    with pytest.raises(NotFound):
        queue.job("nope")
    store.close()
