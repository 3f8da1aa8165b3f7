"""The database's clock, in seconds since 1970.

Leases, back-off and the order of the queue go by it alone, so that machines whose clocks differ agree.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Float, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.expression import FunctionElement


class clock(FunctionElement[float]):
    """``clock()`` in a statement: the database's time when the row is looked at."""

    type = Float()
    inherit_cache = True
    name = "clock"


@compiles(clock, "sqlite")
def _sqlite(element: clock, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(clock, "postgresql")
def _postgresql(element: clock, compiler: Any, **options: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


def now(session: Session) -> float:
    """The database's time."""
    return float(session.scalars(select(clock())).one())
