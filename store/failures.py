"""Failures: candidates that could not be measured, so that a restart does not try at once what failed before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from ..space import Configuration
from .models import Failure


def write_failure(
    session: Session, context: str, configuration: Configuration, split: str, reason: str, *, final: bool, worker: str
) -> None:
    """Insert a failure; one that is known takes the newer reason and time."""
    dialect: Any = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    newer = {"reason": reason, "final": final, "worker": worker, "created_at": datetime.now(UTC)}
    key = {"context": context, "configuration": configuration.digest, "split": split}
    statement = dialect.insert(Failure).values(**key, formats=configuration.to_dict(), **newer)
    session.execute(statement.on_conflict_do_update(index_elements=list(key), set_=newer))


def read_failures(session: Session, context: str, split: str, patience: timedelta) -> dict[Configuration, str]:
    """Configuration -> reason, by digest: those that are final, and those that are no older than ``patience``."""
    counts = or_(Failure.final, Failure.created_at >= datetime.now(UTC) - patience)
    query = select(Failure).where(Failure.context == context, Failure.split == split, counts)
    rows = session.scalars(query.order_by(Failure.configuration))
    return {Configuration.from_dict(row.formats): row.reason for row in rows}
