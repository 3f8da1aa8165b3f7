"""Settings of the service: where things lie, and what is allowed. Every default works on one machine."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from ..store import Limits, default_url

DEFAULT_PORT = 8765


@dataclass(frozen=True)
class Settings:
    """Of a server and its workers.

    Attributes:
        store: SQLAlchemy URL: SQLite on one machine, PostgreSQL for several.
        outputs: folder or fsspec URL; the files of job J lie in ``outputs/J``.
        uploads: folder or fsspec URL of what users send.
        host: to listen on.
        port: to listen on.
        insecure: whether everybody who reaches the port is an administrator.
        insecure_remote: whether that is meant even where other machines reach the port.
        executor: of the jobs: ``"ray"`` or ``"local"``.
        ray_address: of a Ray cluster for all jobs; ``None``: each job starts its own.
        jobs_at_a_time: that one worker runs.
        gpus: of one worker.
        limits: of the queue.
        most_memory_bytes: of a job's processes together; ``None``: no limit.
        grace_seconds: between asking a job to stop and killing it.
        most_evaluations: that a job may ask for.
        most_seconds: of workers' time that a job may ask for.
        cost_per_hour: of a worker, for budgets in money; ``None``: such budgets are refused.
        allowed_modules: whose functions a job may name as ``factory``.
        allowed_urls: beginnings of URLs that a job may name for data and weights.
        most_body_bytes: of a request; uploads have their own limit.
        most_upload_bytes: of an uploaded file.
        body_seconds: that a client may take between two pieces of a body.
        requests_per_minute: of one user.
        failures_per_minute: requests without a valid token from one address.
        most_streams: event streams that one server keeps open.
        keep_days: until the files and events of an ended job are removed; ``None``: never.
        keep_newest: ended jobs of every owner that keep their files however old they are.
    """

    store: str = field(default_factory=default_url)
    outputs: str = str(Path(".bitfront") / "jobs")
    uploads: str = str(Path(".bitfront") / "uploads")
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    insecure: bool = False
    insecure_remote: bool = False
    executor: str = "ray"
    ray_address: str | None = None
    jobs_at_a_time: int = 1
    gpus: int = 0
    limits: Limits = field(default_factory=Limits)
    most_memory_bytes: int | None = None
    grace_seconds: float = 20.0
    most_evaluations: int = 10_000
    most_seconds: float = 7 * 86_400.0
    cost_per_hour: float | None = None
    allowed_modules: tuple[str, ...] = ()
    allowed_urls: tuple[str, ...] = ()
    most_body_bytes: int = 1_000_000
    most_upload_bytes: int = 4_000_000_000
    body_seconds: float = 30.0
    requests_per_minute: int = 600
    failures_per_minute: int = 60
    most_streams: int = 100
    keep_days: float | None = None
    keep_newest: int = 20


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
