"""Retention: files and events of jobs that ended long ago are removed; what was measured stays.

Kept for ever are the job itself, its conditions, record and candidates, and the evaluations, which all jobs share: a
front can still be shown and a new budget answered. Kept besides are the newest jobs of every owner, pinned jobs, and
whatever has not ended.

The order survives a crash at any point. Files are marked in one transaction, and nobody is given them any more; then,
few at a time, they are removed and their rows after them, while the job's row is locked, so that no retry writes at the
same moment. Marked rows that are left over are taken up by the next sweep.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from ..errors import InvalidInput
from ..store import Artifact, Condition, Event, Job, Queue, Store
from ..store.clock import clock, now
from ..store.transitions import known
from .errors_of_database import told
from .locations import file_system, is_url
from .settings import Settings

_ENDED = ("succeeded", "failed", "cancelled")
_FILES = 50  # removed in one transaction
_EVENTS = 2000
_DAY = 86_400.0


@dataclass(frozen=True)
class Swept:
    """What a sweep removed, or would remove.

    Attributes:
        jobs: ids, the oldest first.
        files: how many.
        bytes: of the files.
        events: how many.
        left: job id -> why its files stay.
        dry: whether nothing was removed.
    """

    jobs: tuple[str, ...] = ()
    files: int = 0
    bytes: int = 0
    events: int = 0
    left: dict[str, str] = field(default_factory=dict)
    dry: bool = False


def sweep(store: Store, settings: Settings, *, dry: bool = False, stop: threading.Event | None = None) -> Swept:
    """Remove the files and events of jobs of the service that ended more than ``settings.keep_days`` ago.

    The newest ``settings.keep_newest`` ended jobs of every owner and pinned jobs are passed over. Local runs are never
    touched: their folders belong to whoever ran them.

    Args:
        store: where.
        settings: how long, how many, and where the files lie.
        dry: tell what would be removed.
        stop: once it is set, no further job is begun.
    """
    if settings.keep_days is None:
        return Swept(dry=dry)
    with store.session() as session:
        due = [(row[0], row[1]) for row in session.execute(_due(settings.keep_days, settings.keep_newest))]
        if dry:
            return _counted(session, [job_id for job_id, _ in due])
    jobs, files, size, events, left = [], 0, 0, 0, {}
    for job_id, out in due:
        if stop is not None and stop.is_set():
            break
        place = out or f"{settings.outputs.rstrip('/')}/{job_id}"
        if not _mark(store, job_id):
            continue  # retried meanwhile
        jobs.append(job_id)
        try:
            for removed, taken in _remove_files(store, job_id, place):
                files, size = files + removed, size + taken
            if not out:
                _remove_rest(store, job_id, place)
        except (OSError, InvalidInput) as cause:
            left[job_id] = " ".join(str(cause).split())
        events += _remove_events(store, job_id)
    return Swept(tuple(jobs), files, size, events, left)


class Sweeper:
    """Sweeps once an hour in a thread of its own. Several workers may do so at once: each file is locked by its job.

    Args:
        store: where.
        settings: of the service; without ``keep_days`` nothing is done.
        every: seconds from one sweep to the next.
    """

    def __init__(self, store: Store, settings: Settings, every: float = 3600.0) -> None:
        self._store, self._settings, self._every = store, settings, every
        self._begun: float | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Begin a sweep if it is time for one and the last one has ended."""
        if self._settings.keep_days is None or (self._thread is not None and self._thread.is_alive()):
            return
        if self._begun is None or time.monotonic() - self._begun >= self._every:
            self._begun = time.monotonic()
            self._thread = threading.Thread(target=self._sweep, name="retention", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Wait for the job that is being swept; no other is begun."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _sweep(self) -> None:
        try:
            found = sweep(self._store, self._settings, stop=self._stop)
        except SQLAlchemyError as cause:
            sys.stderr.write(f"bitfront retention: the database does not answer: {told(cause)}; again in an hour\n")
            return
        for job_id, reason in found.left.items():
            sys.stderr.write(f"bitfront retention: files of job {job_id} stay: {reason}\n")


def pin(store: Store, job_id: str, pinned: bool = True) -> Job:
    """Keep the files and events of a job for ever, or no longer.

    Raises:
        NotFound: no such job.
    """
    with store.writing() as session:
        job = known(session, job_id, lock=True)
        job.pinned = pinned
    return Queue(store).job(job_id)


def _due(days: float, newest: int) -> Any:
    """Id and folder of the jobs whose time has come and that have something left, the oldest first."""
    rank = func.row_number().over(partition_by=Job.owner, order_by=(Job.finished_at.desc(), Job.id.desc()))
    ended = select(Job.id, rank.label("rank")).where(Job.state.in_(_ENDED), ~Job.local).subquery()
    something = or_(exists().where(Artifact.job_id == Job.id), exists().where(Event.job_id == Job.id))
    return (
        select(Job.id, Job.out)
        .join(ended, ended.c.id == Job.id)
        .where(*_removable(), Job.finished_at < clock() - days * _DAY, something, ended.c.rank > newest)
        .order_by(Job.finished_at, Job.id)
    )


def _removable() -> tuple[ColumnElement[bool], ...]:
    return (Job.state.in_(_ENDED), ~Job.local, ~Job.pinned)


def _counted(session: Session, jobs: list[str]) -> Swept:
    files = size = events = 0
    for job_id in jobs:
        about = select(func.count(), func.coalesce(func.sum(Artifact.bytes), 0)).where(Artifact.job_id == job_id)
        count, taken = session.execute(about).one()
        files, size = files + count, size + int(taken)
        events += session.scalar(select(func.count()).where(Event.job_id == job_id)) or 0
    return Swept(tuple(jobs), files, size, events, dry=True)


def _mark(store: Store, job_id: str) -> bool:
    """Give the files of a job out no more, and say why; ``False`` if it is no longer to be swept."""
    with store.writing() as session:
        job = _locked(session, job_id)
        if job is None:
            return False
        fresh = (Artifact.job_id == job_id) & ~Artifact.removing
        if session.scalar(select(func.count()).where(fresh)):
            session.execute(update(Artifact).where(fresh).values(removing=True))
            message = "files and events are removed, since the job ended long ago; what it measured is kept"
            at = now(session)
            session.add(
                Condition(
                    job_id=job_id, type="Removed", reason="Retention", message=message, attempt=job.attempt, at=at
                )
            )
        return True


def _remove_files(store: Store, job_id: str, place: str) -> Iterator[tuple[int, int]]:
    """Remove marked files with their rows, a few in a transaction: (files, bytes) of each.

    Raises:
        InvalidInput: a file does not lie in the job's folder.
        OSError: a file cannot be removed.
    """
    while True:
        with store.writing() as session:
            if _locked(session, job_id) is None:
                return
            marked = select(Artifact).where(Artifact.job_id == job_id, Artifact.removing)
            rows = list(session.scalars(marked.order_by(Artifact.name).limit(_FILES)))
            for row in rows:
                _remover(place)(row.location)
                session.delete(row)
            found = len(rows), sum(row.bytes for row in rows)
        if not rows:
            return
        yield found


def _remove_rest(store: Store, job_id: str, place: str) -> None:
    """Remove what is left of a folder of the service's own: files that were never recorded, and the folder."""
    with store.writing() as session:
        if _locked(session, job_id) is not None:
            if not is_url(place) and Path(place).is_symlink():
                raise InvalidInput(f"{place} is a link; remove it by hand")
            system, path = file_system(str(place), "outputs")
            if system.exists(path):
                system.rm(path, recursive=True)


def _remove_events(store: Store, job_id: str) -> int:
    removed = 0
    while True:
        with store.writing() as session:
            if _locked(session, job_id) is None:
                return removed
            ids = list(session.scalars(select(Event.id).where(Event.job_id == job_id).limit(_EVENTS)))
            if not ids:
                return removed
            session.execute(delete(Event).where(Event.id.in_(ids)))
        removed += len(ids)


def _locked(session: Session, job_id: str) -> Job | None:
    """The job, if it may still be swept; nobody retries it until the transaction ends."""
    query = select(Job).where(Job.id == job_id, *_removable()).with_for_update()
    return session.scalar(query)


def _remover(place: str) -> Callable[[str], None]:
    """Removes a file that lies below a folder or URL; one that is gone already is none to remove.

    Raises:
        InvalidInput: it lies elsewhere.
    """

    def remove(location: str) -> None:
        inside = location.startswith(f"{place.rstrip('/')}/") and ".." not in location.split("/")
        if not is_url(place):
            folder, file = Path(place).resolve(), Path(location)
            inside = file.parent.resolve().is_relative_to(folder) and ".." not in file.parts
        if not inside:
            raise InvalidInput(f"{location} does not lie in {place}; it is left alone")
        system, path = file_system(location, "outputs")
        if system.exists(path):
            system.rm_file(path)

    return remove
