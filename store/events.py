"""The log and progress of a job, in the order of their ids, so that a reader goes on where it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import delete, select

from .clock import now
from .queue_models import Event
from .store import Store


class Events:
    """What jobs say while they run.

    Args:
        store: where; a ``LeasedStore`` writes only while its lease holds.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def add(self, job_id: str, events: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Append events, each (kind, content), in one transaction.

        Args:
            job_id: whose.
            events: kinds are ``log``, ``stage``, ``progress``, ``evaluation`` and ``death`` (what a process that died
                had in hand); contents are plain data.
        """
        rows = list(events)
        if not rows:
            return
        with self.store.writing() as session:
            at = now(session)
            session.add_all(Event(job_id=job_id, kind=kind, content=dict(content), at=at) for kind, content in rows)

    def after(self, job_id: str, last: int = 0, count: int = 500, kinds: Iterable[str] = ()) -> list[Event]:
        """The events of a job that come after one, oldest first.

        Args:
            job_id: whose.
            last: id of the last one that is known.
            count: the most to give.
            kinds: only these.
        """
        query = select(Event).where(Event.job_id == job_id, Event.id > last).order_by(Event.id).limit(count)
        if wanted := list(kinds):
            query = query.where(Event.kind.in_(wanted))
        with self.store.session() as session:
            return list(session.scalars(query))

    def forget(self, job_id: str, kinds: Iterable[str]) -> None:
        """Remove the events of some kinds of a job."""
        with self.store.writing() as session:
            session.execute(delete(Event).where(Event.job_id == job_id, Event.kind.in_(list(kinds))))
