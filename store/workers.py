"""Which processes claim jobs, and what they can run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select

from .clock import clock, now
from .queue_models import Worker
from .store import Store


@dataclass(frozen=True)
class Known:
    """A worker that was seen lately.

    Attributes:
        id: host, process and a random part.
        capabilities: such as ``{"gpus": 1, "devices": ["cpu"]}``.
        draining: whether it takes no new jobs.
        seconds: since its last sign of life.
    """

    id: str
    capabilities: dict[str, Any]
    draining: bool
    seconds: float


class Workers:
    """The workers of a store.

    Args:
        store: where.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def seen(self, worker: str, capabilities: Mapping[str, Any], *, draining: bool = False) -> None:
        """Record a sign of life."""
        with self.store.writing() as session:
            at = now(session)
            known = session.get(Worker, worker)
            if known is None:
                known = Worker(id=worker, started_at=at)
                session.add(known)
            known.capabilities, known.draining, known.seen_at = dict(capabilities), draining, at

    def gone(self, worker: str) -> None:
        """Forget a worker that has ended."""
        with self.store.writing() as session:
            session.execute(delete(Worker).where(Worker.id == worker))

    def alive(self, seconds: float = 60.0) -> list[Known]:
        """The workers that gave a sign of life within so many seconds, by id."""
        query = select(Worker, clock() - Worker.seen_at).where(Worker.seen_at >= clock() - seconds).order_by(Worker.id)
        with self.store.session() as session:
            rows = session.execute(query).all()
        return [Known(row.id, row.capabilities, row.draining, float(age)) for row, age in rows]
