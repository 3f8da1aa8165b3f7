"""The declarative base of all tables."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """Declarative base of all tables."""


def utc_now() -> datetime:
    """This machine's clock; leases and orders of the queue go by the database's (``clock``)."""
    return datetime.now(UTC)
