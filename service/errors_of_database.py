"""What an error of the database says in one line, without the statement and its values."""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError


def told(cause: SQLAlchemyError) -> str:
    """The first line of the driver's own message."""
    lines = str(getattr(cause, "orig", None) or type(cause).__name__).strip().splitlines()
    return lines[0] if lines else type(cause).__name__
