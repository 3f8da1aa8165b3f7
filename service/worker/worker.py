"""A worker: claims jobs, runs each in a process of its own, and drains when it is to end."""

from __future__ import annotations

import os
import platform
import secrets
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy.exc import SQLAlchemyError

from ...store import Claims, Lease, Store, Workers
from ..errors_of_database import told
from ..retention import Sweeper
from ..settings import Settings
from .job_process import CHILD, JobProcess

_IDLE = 1.0  # seconds between two looks into an empty queue
_SEEN_EVERY = 15.0


@dataclass(frozen=True)
class _Slot:
    job: JobProcess
    gpus: tuple[str, ...]


class JobWorker:
    """Runs jobs until it is told to stop.

    Args:
        settings: of the service.
        program: arguments of Python that run a job.
    """

    def __init__(self, settings: Settings, program: Sequence[str] = CHILD) -> None:
        self.settings = settings
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._program = program
        self._store = Store(settings.store)
        self._claims = Claims(self._store, settings.limits)
        self._workers = Workers(self._store)
        self._sweeper = Sweeper(self._store, settings)
        self._gpus = _visible(settings.gpus)
        self._running: dict[threading.Thread, _Slot] = {}
        self._seen: float | None = None
        self._recovered = 0.0

    def capabilities(self) -> dict[str, Any]:
        """What this worker can run."""
        return {
            "host": socket.gethostname(),
            "jobs": self.settings.jobs_at_a_time,
            "executor": self.settings.executor,
            "gpus": len(self._gpus),
            "devices": ["cpu", *_gpu_names()],
            "cpus": os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
            "python": platform.python_version(),
            "versions": {name: version(name) for name in ("bitfront", "torch", "ray")},
        }

    def serve(self, stop: threading.Event) -> None:
        """Claim and run jobs until ``stop`` is set; then ask the running ones to stop and give them back.

        An error of the database is told on standard error and waited out: the heartbeats decide which jobs live on.
        """
        while not stop.is_set():
            self._reap()
            try:
                self._sign_of_life()
                self._sweeper.look()
                lease = self._next()
            except SQLAlchemyError as cause:
                sys.stderr.write(f"bitfront worker: the database does not answer: {told(cause)}; trying on\n")
                stop.wait(_IDLE)
                continue
            if lease is None:
                stop.wait(_IDLE)
        self._drain()

    def run_once(self) -> bool:
        """Claim one job and run it to its end; whether there was one."""
        lease = self._claims.claim(self.id, len(self._gpus))
        if lease is None:
            return False
        JobProcess(self.settings, self._claims, lease, self._program, self._gpus[: lease.gpus]).run()
        return True

    def close(self) -> None:
        """Give all connections back."""
        self._sweeper.end()
        self._store.close()

    def _next(self) -> Lease | None:
        """Claim and start a job, if there is one and room for it."""
        if len(self._running) >= self.settings.jobs_at_a_time:
            if time.monotonic() - self._recovered > self.settings.limits.lease_seconds:
                self._recovered = time.monotonic()
                self._claims.recover()  # a claim would do it, but a busy worker makes none
            return None
        taken = {gpu for slot in self._running.values() for gpu in slot.gpus}
        free = [gpu for gpu in self._gpus if gpu not in taken]
        lease = self._claims.claim(self.id, len(free))
        if lease is not None:
            gpus = tuple(free[: lease.gpus])
            job = JobProcess(self.settings, self._claims, lease, self._program, gpus)
            thread = threading.Thread(target=job.run, name=f"job-{lease.job_id}")
            self._running[thread] = _Slot(job, gpus)
            thread.start()
        return lease

    def _reap(self) -> None:
        """Forget the jobs that have ended."""
        for thread in [each for each in self._running if not each.is_alive()]:
            thread.join()
            del self._running[thread]

    def _sign_of_life(self, *, draining: bool = False) -> None:
        if draining or self._seen is None or time.monotonic() - self._seen > _SEEN_EVERY:
            self._workers.seen(self.id, self.capabilities(), draining=draining)
            self._seen = time.monotonic()

    def _drain(self) -> None:
        """Ask all jobs to stop, wait for their ends, take leave."""
        for slot in self._running.values():
            slot.job.drain()
        try:
            self._sign_of_life(draining=True)
        except SQLAlchemyError as cause:
            sys.stderr.write(f"bitfront worker: the database does not answer: {told(cause)}\n")
        for thread in self._running:
            thread.join()
        try:
            self._workers.gone(self.id)
        except SQLAlchemyError as cause:
            sys.stderr.write(f"bitfront worker: the database does not answer: {told(cause)}\n")
        self.close()


def _visible(count: int) -> tuple[str, ...]:
    """The GPUs of a worker, as CUDA_VISIBLE_DEVICES names them."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(index) for index in range(count)] if listed is None else [each for each in listed.split(",") if each]
    return tuple(names[:count])


def _gpu_names() -> list[str]:
    """Models of NVIDIA's driver, without bringing in torch."""
    lines = [
        line
        for about in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
        for line in about.read_text().splitlines()
    ]
    return [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
