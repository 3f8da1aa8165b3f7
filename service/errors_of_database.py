"""What an error of the database says, and whether it is the database that is away."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, SQLAlchemyError


def told(cause: SQLAlchemyError) -> str:
    """The first line of the driver's own message, without the statement and its values."""
    lines = str(getattr(cause, "orig", None) or type(cause).__name__).strip().splitlines()
    return lines[0] if lines else type(cause).__name__


def unreachable(cause: BaseException) -> bool:
    """Whether a server of the database cannot be reached, shuts down or starts up: waiting helps.

    SQLSTATE classes 08 (connection exception) and 57P (operator intervention), or none: no connection at all.
    """
    if not isinstance(cause, DBAPIError) or cause.orig is None or not hasattr(cause.orig, "sqlstate"):
        return False
    state: str | None = cause.orig.sqlstate
    return cause.connection_invalidated or state is None or state.startswith(("08", "57P"))
