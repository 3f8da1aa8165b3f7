"""Jobs and everything around them: conditions, events, workers, users, tokens, artifacts, uploads, the audit trail.

Moments are floats, seconds since 1970 by the database's clock; ``created_at`` and ``updated_at`` are for people only.
Every change of a table comes with a migration in ``migrations/versions``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
)
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, utc_now

_SERIAL = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up INTEGER keys only


class Job(Base):
    """One search: what was asked, how it stands, and who may write for it."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    specification: Mapped[dict[str, Any]] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(Text, default="")
    out: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now, onupdate=utc_now)
    #: run by ``bitfront run`` itself, never claimed from the queue
    local: Mapped[bool] = mapped_column(Boolean, default=True)
    owner: Mapped[str] = mapped_column(String(80), default="")
    #: idempotency key of the submission, unique per owner
    submission: Mapped[str | None] = mapped_column(String(200))
    priority: Mapped[int] = mapped_column(Integer, default=0)
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    most_attempts: Mapped[int] = mapped_column(Integer, default=3)
    queued_at: Mapped[float | None] = mapped_column(Float)
    not_before: Mapped[float | None] = mapped_column(Float)
    started_at: Mapped[float | None] = mapped_column(Float)
    finished_at: Mapped[float | None] = mapped_column(Float)
    epoch: Mapped[int] = mapped_column(Integer, default=0)
    worker: Mapped[str] = mapped_column(String(200), default="")
    lease_until: Mapped[float | None] = mapped_column(Float)
    beat_at: Mapped[float | None] = mapped_column(Float)
    #: what its worker is to do: "", "pause" or "cancel"
    wish: Mapped[str] = mapped_column(String(10), default="")
    #: seconds that workers have spent on it over all attempts, and the most they may
    seconds_used: Mapped[float] = mapped_column(Float, default=0.0)
    most_seconds: Mapped[float | None] = mapped_column(Float)
    #: devices whose measured tables it needs, and whether one of them is still missing
    needs: Mapped[list[str]] = mapped_column(JSON, default=list)
    waiting: Mapped[bool] = mapped_column(Boolean, default=False)
    #: GPUs that its worker must have
    gpus: Mapped[int] = mapped_column(Integer, default=0)
    progress: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    #: what it takes to run it again: versions, commit, device, digests of tables, threads
    record: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    #: its files and events are kept for ever
    pinned: Mapped[bool] = mapped_column(Boolean, default=False)

    __table_args__ = (
        Index("uq_jobs_submission", "owner", "submission", unique=True),
        Index("ix_jobs_queue", "state", "priority", "queued_at"),
        Index("ix_jobs_finished", "finished_at"),
    )


class Condition(Base):
    """Something that became true of a job: type, reason, message, time."""

    __tablename__ = "conditions"

    id: Mapped[int] = mapped_column(_SERIAL, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    type: Mapped[str] = mapped_column(String(40))
    reason: Mapped[str] = mapped_column(String(80))
    message: Mapped[str] = mapped_column(Text)
    attempt: Mapped[int] = mapped_column(Integer)
    at: Mapped[float] = mapped_column(Float)


class Event(Base):
    """A line of a job's log or a step of its progress; the id orders them, for streams that go on where they were."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(_SERIAL, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(20))
    content: Mapped[dict[str, Any]] = mapped_column(JSON)
    at: Mapped[float] = mapped_column(Float)

    __table_args__ = (Index("ix_events_job", "job_id", "id"),)


class Worker(Base):
    """A process that claims jobs."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    capabilities: Mapped[dict[str, Any]] = mapped_column(JSON)
    draining: Mapped[bool] = mapped_column(Boolean, default=False)
    started_at: Mapped[float] = mapped_column(Float)
    seen_at: Mapped[float] = mapped_column(Float)


class User(Base):
    """Who may use the service."""

    __tablename__ = "users"

    name: Mapped[str] = mapped_column(String(80), primary_key=True)
    role: Mapped[str] = mapped_column(String(20))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)


class Token(Base):
    """A bearer token of a user; only its hash is kept."""

    __tablename__ = "tokens"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    user: Mapped[str] = mapped_column(ForeignKey("users.name", ondelete="CASCADE"), index=True)
    note: Mapped[str] = mapped_column(String(200), default="")
    expires_at: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)


class Audit(Base):
    """Who did or tried what."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(_SERIAL, primary_key=True, autoincrement=True)
    at: Mapped[float] = mapped_column(Float, index=True)
    user: Mapped[str] = mapped_column(String(80))
    action: Mapped[str] = mapped_column(String(80))
    target: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(String(20))
    detail: Mapped[str] = mapped_column(Text)


class Artifact(Base):
    """A file that a job wrote, by name, with its content hash."""

    __tablename__ = "artifacts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(300), primary_key=True)
    location: Mapped[str] = mapped_column(Text)
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    at: Mapped[float] = mapped_column(Float)
    #: marked by the retention, which removes the file next; it is no longer given out
    removing: Mapped[bool] = mapped_column(Boolean, default=False)


class Upload(Base):
    """A file that a user sent: weights, data, an exported program or a latency table; named by its content."""

    __tablename__ = "uploads"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    name: Mapped[str] = mapped_column(String(200))
    owner: Mapped[str] = mapped_column(String(80))
    location: Mapped[str] = mapped_column(Text)
    bytes: Mapped[int] = mapped_column(BigInteger)
    #: such as the device and rows of a latency table
    details: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    at: Mapped[float] = mapped_column(Float)
