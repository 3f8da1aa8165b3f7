"""The table of scored formulas: what an evolution knows, so that nothing is scored twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from .models import ScoredFormula

_COLUMNS = ("digest", "expression", "size", "signature", "fitness", "details", "reason", "seconds")


def write_formulas(session: Session, context: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert scored formulas; one that was only screened so far is completed, a complete one stays."""
    values = [{"context": context, **{name: row[name] for name in _COLUMNS}} for row in rows]
    if not values:
        return
    dialect: Any = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    statement = dialect.insert(ScoredFormula)
    completed = {name: statement.excluded[name] for name in ("fitness", "details", "reason", "seconds")}
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["context", "digest"],
            set_=completed,
            where=ScoredFormula.fitness.is_(None) & statement.excluded["fitness"].is_not(None),
        ),
        values,
    )


def read_formulas(session: Session, context: str) -> list[dict[str, Any]]:
    """All formulas of a context, by digest."""
    query = select(ScoredFormula).where(ScoredFormula.context == context).order_by(ScoredFormula.digest)
    return [{name: getattr(row, name) for name in _COLUMNS} for row in session.scalars(query)]
