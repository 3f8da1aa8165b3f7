"""What is known, as SQLAlchemy models; jobs and who runs them are in ``queue_models``.

Every change of a table comes with a migration in ``migrations/versions``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Boolean, DateTime, Float, ForeignKey, Index, Integer, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, utc_now


class Candidate(Base):
    """A configuration that a job proposed, and why."""

    __tablename__ = "candidates"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    configuration: Mapped[str] = mapped_column(String(16), primary_key=True)
    formats: Mapped[dict[str, str]] = mapped_column(JSON)
    origin: Mapped[str] = mapped_column(Text)
    predicted: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)
    #: in the order of proposal; not without gaps
    position: Mapped[int] = mapped_column(Integer, default=0)

    __table_args__ = (Index("ix_candidates_position", "job_id", "position", "configuration"),)


class Evaluation(Base):
    """A measured quality, shared by all jobs: what was measured is keyed by content, not by who asked."""

    __tablename__ = "evaluations"

    context: Mapped[str] = mapped_column(String(80), primary_key=True)
    configuration: Mapped[str] = mapped_column(String(16), primary_key=True)
    split: Mapped[str] = mapped_column(String(20), primary_key=True)
    metric: Mapped[str] = mapped_column(String(80))
    value: Mapped[float] = mapped_column(Float)
    low: Mapped[float] = mapped_column(Float)
    high: Mapped[float] = mapped_column(Float)
    seconds: Mapped[float] = mapped_column(Float)
    samples: Mapped[int] = mapped_column(Integer)
    values: Mapped[bytes] = mapped_column(LargeBinary)
    formats: Mapped[dict[str, str]] = mapped_column(JSON)
    worker: Mapped[str] = mapped_column(String(120), default="")
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)

    __table_args__ = (Index("ix_evaluations_context", "context"),)


class Failure(Base):
    """A configuration that could not be measured; what is not final may be tried again some time later."""

    __tablename__ = "failures"

    context: Mapped[str] = mapped_column(String(80), primary_key=True)
    configuration: Mapped[str] = mapped_column(String(16), primary_key=True)
    split: Mapped[str] = mapped_column(String(20), primary_key=True)
    formats: Mapped[dict[str, str]] = mapped_column(JSON)
    reason: Mapped[str] = mapped_column(Text)
    final: Mapped[bool] = mapped_column(Boolean)
    worker: Mapped[str] = mapped_column(String(120))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)


class Score(Base):
    """The scores of one proxy: arrays [sites, formats], keyed by everything that they depend on."""

    __tablename__ = "scores"

    key: Mapped[str] = mapped_column(String(80), primary_key=True)
    proxy: Mapped[str] = mapped_column(Text)
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    seconds: Mapped[float] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)

    __table_args__ = (Index("ix_scores_proxy", "proxy", "created_at"),)


class Kernel(Base):
    """One measured kernel: a row of a latency table, keyed by the digest of what was timed where."""

    __tablename__ = "kernels"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    device: Mapped[str] = mapped_column(String(120), index=True)
    row: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)


class ScoredFormula(Base):
    """A formula of an evolution and how well it ranks; the context is all that the fitness depends on."""

    __tablename__ = "formulas"

    context: Mapped[str] = mapped_column(String(80), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    expression: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(Integer)
    signature: Mapped[str] = mapped_column(String(64))
    fitness: Mapped[float | None] = mapped_column(Float)
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    reason: Mapped[str] = mapped_column(Text)
    seconds: Mapped[float] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)
