"""Real jobs under a worker: what they leave in the store and on disk, and that nothing is measured twice."""

import hashlib
import json
import shutil
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from bitfront.service.settings import Settings
from bitfront.service.worker import JobWorker
from bitfront.store import Artifacts, Evaluation, Events, Failure, Limits, Queue, Store, Submission
from sqlalchemy import select

HERE = Path(__file__).parent
QUICK = Limits(lease_seconds=60.0, back_off=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A factory and its data."""
    folder = tmp_path_factory.mktemp("jobs")
    shutil.copy(HERE / "tiny_factory.py", folder)
    draw = np.random.default_rng(0)
    for name in ("c", "v"):
        np.savez(folder / f"{name}.npz", inputs=draw.standard_normal((64, 3, 8, 8), dtype=np.float32))
    return folder


def submit(queue, folder, **changes):
    specification = {
        "name": "tiny",
        "model": {"factory": "tiny_factory:tiny"},
        "data": {"calibration": "c.npz", "validation": "v.npz"},
        "space": {"formats": ["w2", "w4", "w8"]},
        "objectives": ["quality", "size_mb"],
        "proxies": ["weight_mse"],
        "search": {"evaluations": 10},
        "export": None,
        "folder": str(folder),
    }
    return queue.submit(Submission("tiny", {**specification, **changes}, owner="ann"))[0].id


def settings_of(url, outputs, **changes):
    return Settings(store=url, outputs=str(outputs), executor="local", **{"limits": QUICK, **changes})


def once(settings, *program):
    worker = JobWorker(settings, program) if program else JobWorker(settings)
    try:
        assert worker.run_once()
    finally:
        worker.close()


def evaluations(store):
    """(configuration, split) of all that is stored."""
    with store.session() as session:
        return sorted((row.configuration, row.split) for row in session.scalars(select(Evaluation)))


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """A job that ran to its end: its queue, id and output folder."""
    place = tmp_path_factory.mktemp("finished")
    store = Store(f"sqlite:///{place}/store.db")
    queue = Queue(store)
    job_id = submit(queue, folder)
    once(settings_of(store.url, place / "outputs"))
    yield queue, job_id, place / "outputs" / job_id
    store.close()


def test_a_job_succeeds_and_says_how_it_went(finished):
    queue, job_id, _ = finished
    job = queue.job(job_id)
    assert job.state == "succeeded"
    assert job.reason.startswith("best ")
    assert (job.progress["evaluated"], job.progress["evaluations"], job.progress["eta_seconds"]) == (10, 10, 0.0)
    events = Events(queue.store).after(job_id)
    assert {event.kind for event in events} == {"log", "stage", "progress", "evaluation"}
    told = sorted(
        (event.content["configuration"], event.content["split"]) for event in events if event.kind == "evaluation"
    )
    assert told == evaluations(queue.store)
    stages = [event.content["stage"] for event in events if event.kind == "stage" and event.content["state"] == "done"]
    assert stages[0] == "load model and data"
    assert stages[-1] == "write the report"


def test_its_files_are_recorded_as_they_lie_on_disk(finished):
    queue, job_id, out = finished
    found = Artifacts(queue.store).of(job_id)
    assert {file.name for file in found} == {"best.json", "front.json", "front.parquet", "report.html", "run.log"}
    for file in found:
        content = (out / file.name).read_bytes()
        assert (file.location, file.bytes) == (str(out / file.name), len(content))
        assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert json.loads((out / "front.json").read_text())["job"]["name"] == "tiny"


def test_a_job_that_cannot_run_fails_at_once(finished, folder, tmp_path):
    queue, _, out = finished
    job_id = submit(queue, folder, proxies=["no_such_proxy"])
    once(settings_of(queue.store.url, out.parent))
    job = queue.job(job_id)
    assert (job.state, job.attempt, queue.conditions(job_id)[-1].reason) == ("failed", 1, "BadInput")
    assert "no_such_proxy" in job.reason
    assert [file.name for file in Artifacts(queue.store).of(job_id)] == ["run.log"]


def test_a_candidate_that_ends_its_process_is_given_up_and_the_job_goes_on(finished, folder, tmp_path, monkeypatch):
    queue, job_id, _ = finished
    with queue.store.session() as session:
        rows = session.execute(
            select(Evaluation.configuration, Evaluation.formats)
            .where(Evaluation.split == "validation")
            .order_by(Evaluation.created_at)
        ).all()
    mixed = [digest for digest, formats in rows if len(set(formats.values())) > 1]
    monkeypatch.setenv("DEADLY", mixed[-1])
    monkeypatch.setenv("NOT_FINITE", mixed[-2])
    store = Store(f"sqlite:///{tmp_path}/store.db")
    queue = Queue(store)
    job_id = submit(queue, folder)
    settings, tries = settings_of(store.url, tmp_path / "outputs"), 0
    while queue.job(job_id).state == "queued" and tries < 5:
        once(settings, str(HERE / "trapped_job.py"))
        tries += 1
    assert queue.job(job_id).state == "succeeded"
    assert tries <= 3
    with store.session() as session:
        failures = {row.configuration: (row.final, row.reason) for row in session.scalars(select(Failure))}
    assert failures[mixed[-2]] == (True, "the outputs are not finite")
    assert not failures[mixed[-1]][0]
    assert "SIGSEGV" in failures[mixed[-1]][1]
    assert len(failures) == 2
    told = Counter(
        (event.content["configuration"], event.content["split"])
        for event in Events(store).after(job_id, kinds=["evaluation"])
    )
    assert set(told.values()) == {1}  # no measurement was made twice
    assert mixed[-1] not in {configuration for configuration, _ in told}
    store.close()


def test_paused_and_resumed_on_postgresql_nothing_is_measured_twice(postgres_url, folder, tmp_path, finished):
    from bitfront.store.base import Base

    store = Store(postgres_url)
    with store.writing() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())
    queue = Queue(store)
    brake = tmp_path / "brake"  # until it is gone the job is too slow to end before the wish to pause is heard
    brake.touch()
    slow = {"factory": "tiny_factory:slow", "arguments": {"seconds": 0.5, "brake": str(brake)}}
    job_id = submit(queue, folder, model=slow)
    # outputs behind a URL; a short lease, so that a wish is heard soon
    limits = Limits(lease_seconds=8.0, back_off=0.0)
    settings = settings_of(postgres_url, f"file://{tmp_path}/bucket", limits=limits)
    thread = threading.Thread(target=once, args=(settings,))
    thread.start()
    until = time.monotonic() + 120
    while len(evaluations(store)) < 3:
        assert time.monotonic() < until
        time.sleep(0.05)
    queue.pause(job_id)
    thread.join()
    brake.unlink()
    job = queue.job(job_id)
    before = evaluations(store)
    assert (job.state, job.attempt) == ("paused", 1)
    queue.resume(job_id)
    once(settings)
    assert queue.job(job_id).state == "succeeded"
    assert set(before) < set(evaluations(store))
    told = Counter(
        (event.content["configuration"], event.content["split"])
        for event in Events(store).after(job_id, kinds=["evaluation"])
    )
    assert set(told.values()) == {1}
    assert sorted(told) == evaluations(store)
    stored = {file.name: file for file in Artifacts(store).of(job_id)}
    place = tmp_path / "bucket" / job_id
    assert stored["front.json"].location == f"file://{place}/front.json"
    assert stored["front.json"].sha256 == hashlib.sha256((place / "front.json").read_bytes()).hexdigest()
    store.close()
