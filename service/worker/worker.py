"""A worker: claims jobs, runs each in a process of its own, and drains when it is to end."""

from __future__ import annotations

import platform
import secrets
import socket
import sys
import threading
import time
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from ...store import Claims, Lease, Store, Workers
from ..errors_of_database import told
from ..settings import Settings
from .job_process import JobProcess

_IDLE = 1.0  # seconds between two looks into an empty queue
_SEEN_EVERY = 15.0


class JobWorker:
    """Runs jobs until it is told to stop.

    Args:
        settings: of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.id = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._store = Store(settings.store)
        self._claims = Claims(self._store, settings.limits)
        self._workers = Workers(self._store)
        self._running: dict[threading.Thread, JobProcess] = {}
        self._seen = 0.0

    def capabilities(self) -> dict[str, Any]:
        """What this worker can run."""
        from ... import __version__

        return {
            "host": socket.gethostname(),
            "gpus": self.settings.gpus,
            "jobs": self.settings.jobs_at_a_time,
            "bitfront": __version__,
            "python": platform.python_version(),
        }

    def serve(self, stop: threading.Event) -> None:
        """Claim and run jobs until ``stop`` is set; then ask the running ones to stop and give them back.

        An error of the database is told on standard error and waited out: the heartbeats decide which jobs live on.
        """
        while not stop.is_set():
            busy = self._reap()
            try:
                self._sign_of_life()
                lease = self._claims.claim(self.id, self.settings.gpus) if busy < self.settings.jobs_at_a_time else None
            except SQLAlchemyError as cause:
                sys.stderr.write(f"bitfront worker: the database does not answer: {told(cause)}; trying on\n")
                stop.wait(_IDLE)
                continue
            if lease is None:
                stop.wait(_IDLE)
            else:
                self._start(lease)
        self._drain()

    def run_once(self) -> bool:
        """Claim one job and run it to its end; whether there was one."""
        lease = self._claims.claim(self.id, self.settings.gpus)
        if lease is None:
            return False
        JobProcess(self.settings, self._claims, lease).run()
        return True

    def close(self) -> None:
        """Give all connections back."""
        self._store.close()

    def _start(self, lease: Lease) -> None:
        job = JobProcess(self.settings, self._claims, lease)
        thread = threading.Thread(target=job.run, name=f"job-{lease.job_id}")
        self._running[thread] = job
        thread.start()

    def _reap(self) -> int:
        """Forget the jobs that have ended; how many run on."""
        for thread in [each for each in self._running if not each.is_alive()]:
            thread.join()
            del self._running[thread]
        return len(self._running)

    def _sign_of_life(self, *, draining: bool = False) -> None:
        if draining or time.monotonic() - self._seen > _SEEN_EVERY or not self._seen:
            self._workers.seen(self.id, self.capabilities(), draining=draining)
            self._seen = time.monotonic()

    def _drain(self) -> None:
        try:
            self._sign_of_life(draining=True)
        except SQLAlchemyError as cause:
            sys.stderr.write(f"bitfront worker: the database does not answer: {told(cause)}\n")
        for job in self._running.values():
            job.drain()
        for thread in self._running:
            thread.join()
        try:
            self._workers.gone(self.id)
        except SQLAlchemyError as cause:
            sys.stderr.write(f"bitfront worker: the database does not answer: {told(cause)}\n")
        self.close()
