"""Runs of ``bitfront run`` and ``bitfront.run``: jobs that no worker claims and that keep a lease of their own.

A thread of the run gives signs of life, so that a run that was killed is seen to be dead, and passes on what people ask
of it. What a run writes is not fenced: it is keyed by content and as true after the lease as before. So a run that
outlived its lease (a suspended machine) goes on and takes its job back, unless it was started again meanwhile.
"""

from __future__ import annotations

import secrets
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from .clock import clock, now
from .queue_models import Job
from .transitions import known, stop, tell

if TYPE_CHECKING:
    from .store import Store

LEASE_SECONDS = 30.0
_BEATS_PER_LEASE = 4


def taken_up(session: Session, name: str, specification: Mapping[str, Any], out: str) -> Job:
    """The unfinished local job with this specification and output folder that nobody works on, else a new one."""
    asked = select(Job).where(Job.local, Job.out == out, Job.name == name, Job.state != "succeeded")
    for job in session.scalars(asked.order_by(Job.created_at).with_for_update()):
        if job.specification == dict(specification) and not _worked_on(session, job):
            return job
    job = Job(
        id=secrets.token_hex(6),
        name=name,
        specification=dict(specification),
        state="queued",
        reason="",
        out=out,
        epoch=0,
        attempt=0,
        seconds_used=0.0,
        queued_at=now(session),
    )
    session.add(job)
    session.flush()
    return job


@contextmanager
def local_run(store: Store, name: str, specification: Mapping[str, Any], out: str) -> Iterator[str]:
    """A job that runs as long as the block, and ends as the block does: succeeded, paused (Ctrl-C) or failed.

    Args:
        store: where.
        name: shown to people.
        specification: the job as written.
        out: output folder.

    Yields:
        The job's id.
    """
    run = _LocalRun(store, name, specification, out)
    with run.beating():
        try:
            yield run.job_id
        except KeyboardInterrupt:
            run.interrupted()
            raise
        except Exception as cause:
            run.end("failed", "Failed", str(cause))
            raise
    run.end("succeeded", "Done", "")


class _LocalRun:
    """The lease of one run."""

    def __init__(self, store: Store, name: str, specification: Mapping[str, Any], out: str) -> None:
        self._store, self._worker, self._wish = store, _this_process(), ""
        self._lock, self._over = threading.Lock(), False
        self._in_main_thread = threading.current_thread() is threading.main_thread()
        with store.writing() as session:
            job = taken_up(session, name, specification, out)
            self.job_id = job.id
            self._take(session, job)
            tell(session, job, "Running", "Started", "")
            self._epoch = job.epoch

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Signs of life while the block runs."""
        ended = threading.Event()
        thread = threading.Thread(target=self._beat, args=(ended,), name=f"heartbeat-{self.job_id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def interrupted(self) -> None:
        """Stopped by Ctrl-C, or because somebody asked for it."""
        if self._wish == "cancel":
            self.end("cancelled", "Asked", "stopped as it was asked to")
        else:
            asked = "as it was asked to" if self._wish else "from the keyboard"
            self.end("paused", "Stopped", f"stopped {asked}; run it again to go on")

    def end(self, state: str, reason: str, message: str) -> None:
        """Tell how it ended, unless another run has taken the job over."""
        with self._lock, self._store.writing() as session:
            self._over = True  # no sign of life after this
            job = known(session, self.job_id, lock=True)
            if self._mine(job):
                stop(session, job, state)
                tell(session, job, state.capitalize(), reason, message)

    def _beat(self, ended: threading.Event) -> None:
        while not ended.wait(LEASE_SECONDS / _BEATS_PER_LEASE):
            try:
                wish = self._sign()
            except SQLAlchemyError:
                continue  # the run itself will meet the error where it matters
            if wish is None:
                return
            if wish and not self._wish and self._in_main_thread:
                self._wish = wish
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _sign(self) -> str | None:
        """Keep the lease, or take it back; what was asked, ``None`` if the job has ended or is another run's."""
        with self._lock:
            with self._store.writing() as session:
                job = known(session, self.job_id, lock=True)
                if self._over or not self._mine(job):
                    return None
                if job.epoch != self._epoch:  # counted as dead while this machine slept
                    self._take(session, job)
                    tell(session, job, "Running", "Back", "it was not dead after all")
                moment = now(session)
                job.seconds_used += moment - (job.beat_at or moment)
                job.beat_at, job.lease_until = moment, moment + LEASE_SECONDS
            self._epoch = job.epoch  # now that it is committed
            return job.wish

    def _mine(self, job: Job) -> bool:
        """Whether it runs under this lease, or was only counted as dead since."""
        running = job.state == "running" and job.epoch == self._epoch
        return running or (job.state == "paused" and job.epoch == self._epoch + 1)

    def _take(self, session: Session, job: Job) -> None:
        moment = now(session)
        job.state, job.reason, job.worker, job.wish = "running", "", self._worker, ""
        job.epoch += 1
        job.attempt += 1
        job.started_at, job.finished_at = job.started_at or moment, None
        job.beat_at, job.lease_until = moment, moment + LEASE_SECONDS


def _this_process() -> str:
    process = psutil.Process()
    return f"{socket.gethostname()}/{process.pid}/{process.create_time():.2f}"


def _worked_on(session: Session, job: Job) -> bool:
    """Whether a process that is not known to be dead holds a lease on it."""
    if job.state != "running" or job.lease_until is None:
        return False
    if not session.scalar(select(func.count()).where(Job.id == job.id, Job.lease_until >= clock())):
        return False
    host, _, process = job.worker.partition("/")
    number, _, started = process.partition("/")
    if host != socket.gethostname():
        return True
    try:
        found = psutil.Process(int(number))
        return f"{found.create_time():.2f}" == started and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
