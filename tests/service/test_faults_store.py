"""Faults of what the store stands on: a database that restarts, a disk that is full, many that begin at once."""

import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
from bitfront.measurement import Measurement
from bitfront.service.errors_of_database import told
from bitfront.service.settings import Settings
from bitfront.service.worker import JobWorker
from bitfront.store import Claims, Evaluation, Events, LeasedStore, Limits, Queue, Store, Submission
from sqlalchemy import create_engine, event, select, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

PROGRAMS = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
STEADY = Limits(lease_seconds=60.0, back_off=0.0)
PROCESSES = 16


class Postgres:
    """A PostgreSQL that a test may restart."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        self.url = f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"

    def run(self, program, *arguments):
        command = ["runuser", "-u", "postgres", "--", PROGRAMS / program, "-D", self.folder / "data", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    def start(self):
        self.run("pg_ctl", "-o", self.options, "-w", "-l", self.folder / "log", "start")

    def stop(self, how):
        self.run("pg_ctl", "-m", how, "-w", "stop")

    def restart(self, how):
        self.stop(how)
        self.start()


@pytest.fixture(scope="module")
def postgres():
    if PROGRAMS is None:
        pytest.skip("no PostgreSQL server programs under /usr/lib/postgresql")
    folder = Path(tempfile.mkdtemp(prefix="bitfront-restarted-"))
    shutil.chown(folder, "postgres", "postgres")
    server = Postgres(folder)
    server.run("initdb", "--auth=trust", "--no-sync")
    server.start()
    yield server
    server.stop("immediate")
    shutil.rmtree(folder)


def measurement(value):
    return Measurement("kl", "validation", value, value, value, 0.0, 1, (value,))


def configuration(number):
    return bf.Configuration.from_dict({"a": "w4", f"s{number}": "w8"})


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_database_that_restarts_between_transactions_is_not_noticed(postgres, how):
    store = Store(postgres.url)
    queue, claims = Queue(store), Claims(store, STEADY)
    job, _ = queue.submit(Submission(how, {}))
    lease = claims.claim("w")
    leased = LeasedStore(store, lease)
    leased.save_evaluation(f"between {how}", configuration(0), measurement(0.0))
    postgres.restart(how)
    assert claims.beat(lease) == ""
    leased.save_evaluation(f"between {how}", configuration(1), measurement(1.0))
    assert [each.value for each in store.evaluations(f"between {how}", "validation").values()] == [0.0, 1.0]
    claims.finish(lease, "succeeded", "Done")
    assert (queue.job(job.id).state, queue.job(job.id).attempt) == ("succeeded", 1)
    store.close()


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_transaction_that_a_restart_cuts_off_is_undone_whole(postgres, how):
    store = Store(postgres.url)
    queue, claims = Queue(store), Claims(store, STEADY)
    job, _ = queue.submit(Submission(how, {}))
    lease = claims.claim("w")
    before = queue.job(job.id)
    with pytest.raises(SQLAlchemyError), store.writing() as session:  # noqa: PT012
        session.execute(text("UPDATE jobs SET state = 'succeeded', reason = 'half done'"))
        session.execute(text("SELECT 1"))
        postgres.restart(how)
        session.execute(text("UPDATE jobs SET priority = 9"))
    after = queue.job(job.id)
    assert (after.state, after.reason, after.priority) == ("running", before.reason, 0)
    assert claims.beat(lease) == ""  # the lease outlived it
    claims.finish(lease, "cancelled", "Asked")
    store.close()


def test_a_job_that_runs_while_the_database_restarts_succeeds_and_measures_nothing_twice(postgres, tmp_path):
    shutil.copy(Path(__file__).with_name("tiny_factory.py"), tmp_path)
    draw = np.random.default_rng(0)
    for name in ("c", "v"):
        np.savez(tmp_path / f"{name}.npz", inputs=draw.standard_normal((64, 3, 8, 8), dtype=np.float32))
    specification = {
        "name": "tiny",
        "model": {"factory": "tiny_factory:slow", "arguments": {"seconds": 0.05}},
        "data": {"calibration": "c.npz", "validation": "v.npz"},
        "space": {"formats": ["w2", "w4", "w8"]},
        "objectives": ["quality", "size_mb"],
        "proxies": ["weight_mse"],
        "search": {"evaluations": 10},
        "export": None,
        "folder": str(tmp_path),
    }
    store = Store(postgres.url)
    queue = Queue(store)
    job_id = queue.submit(Submission("tiny", specification))[0].id
    limits = Limits(lease_seconds=60.0, back_off=0.0)
    worker = JobWorker(Settings(store=store.url, outputs=str(tmp_path / "jobs"), executor="local", limits=limits))
    stop = threading.Event()
    thread = threading.Thread(target=worker.serve, args=(stop,))
    thread.start()
    try:
        deadline = time.monotonic() + 150
        while len(before := rows(store)) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        postgres.restart("immediate")
        while queue.job(job_id).state in ("queued", "running") and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        stop.set()
        thread.join()
    job = queue.job(job_id)
    assert (job.state, job.attempt) == ("succeeded", 1), job.reason  # an attempt that a restart ends does not count
    after = rows(store)
    assert len(before) >= 3
    assert before.items() <= after.items()
    told_of = [
        (each.content["configuration"], each.content["split"])
        for each in Events(store).after(job_id, kinds=["evaluation"])
    ]
    assert len(set(told_of)) == len(told_of)
    store.close()


def rows(store):
    """(configuration, split) -> when it was committed, of the job that runs here."""
    with store.session() as session:
        found = session.scalars(select(Evaluation).where(~Evaluation.context.startswith("between ")))
        return {(row.configuration, row.split): row.created_at for row in found}


def test_a_full_disk_loses_nothing_that_was_committed_and_is_told_in_one_line(tmp_path):
    store = Store(f"sqlite:///{tmp_path}/store.db")
    job, _ = Queue(store).submit(Submission("demo", {}))
    lease = Claims(store, STEADY).claim("w")
    leased = LeasedStore(store, lease)
    with store.session() as session:
        most = session.scalar(text("PRAGMA page_count")) + 10

    def size(connection, record, proxy):
        connection.execute(f"PRAGMA max_page_count = {most}")

    event.listen(store._engine, "checkout", size)
    kept = 0
    with pytest.raises(OperationalError) as caught:  # noqa: PT012
        while True:
            leased.save_evaluation("full", configuration(kept), measurement(float(kept)))
            kept += 1
            assert kept < 10_000
    assert told(caught.value) == "database or disk is full"
    assert kept > 0
    with pytest.raises(OperationalError):  # many events are one transaction: all or none
        Events(leased).add(job.id, [("log", {"line": "x" * 500})] * 1000)
    assert Events(store).after(job.id) == []
    assert len(store.evaluations("full", "validation")) == kept
    most = 2**30
    leased.save_evaluation("full", configuration(kept), measurement(float(kept)))
    store.close()
    assert len(Store(store.url).evaluations("full", "validation")) == kept + 1


BEGIN = """
import multiprocessing, sys
from bitfront.store import Claims, Limits, Queue, Store, Submission

def begin(url, gate, number, told):
    gate.wait(60)
    store = Store(url)  # makes the schema
    queue, claims = Queue(store), Claims(store, Limits(lease_seconds=60.0))
    same, _ = queue.submit(Submission("the same", {}, key="one-key"))
    queue.submit(Submission(f"job {number}", {}))
    gate.wait(60)
    while lease := claims.claim(f"process {number}"):
        told.put((same.id, lease.job_id))
    store.close()

if __name__ == "__main__":
    count = int(sys.argv[2])
    context = multiprocessing.get_context("fork")
    gate, told = context.Barrier(count), context.SimpleQueue()
    processes = [context.Process(target=begin, args=(sys.argv[1], gate, number, told)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print(sum(process.exitcode != 0 for process in processes))
    while not told.empty():
        print(*told.get())
"""


def test_processes_that_make_the_schema_submit_and_claim_at_once_do_each_thing_once(url):
    """The store does not exist yet, or (PostgreSQL) its tables are dropped first."""
    if url.startswith("postgresql"):
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        engine.dispose()
    done = subprocess.run(
        [sys.executable, "-c", BEGIN, url, str(PROCESSES)], capture_output=True, text=True, timeout=120, check=True
    )
    failed, *claims = done.stdout.splitlines()
    assert failed == "0", done.stderr
    same, taken = zip(*(line.split() for line in claims), strict=True)
    assert len(set(same)) == 1
    store = Store(url)
    assert sorted(taken) == sorted(job.id for job in store.jobs())
    assert len(taken) == PROCESSES + 1
    assert {job.state for job in store.jobs()} == {"running"}
    store.close()
