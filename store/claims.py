"""The queue as workers see it: claims by compare-and-set, heartbeats, ends, and recovery of what died.

Of two workers that want a job only one changes its row from (queued, epoch) to (running, epoch + 1). On PostgreSQL the
claims come one after the other besides, since the limits are counted over many rows (``FOR UPDATE SKIP LOCKED`` would
not count them, and means nothing on SQLite).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Select, func, or_, select, text, update
from sqlalchemy.orm import Session, aliased

from .clock import clock
from .lease import Lease, check_lease
from .queue_models import Job
from .store import Store
from .transitions import known, requeue, stop, tell

Wish = Literal["", "pause", "cancel", "over"]
End = Literal["succeeded", "failed", "paused", "cancelled"]
_CLAIMS = 8117043  # advisory lock of PostgreSQL


@dataclass(frozen=True)
class Limits:
    """What the queue allows.

    Attributes:
        lease_seconds: until a worker that gives no sign counts as dead.
        per_owner: jobs of one owner that run at a time; ``None``: as many as there are workers.
        running: jobs that run at a time in all.
        back_off: seconds before the second attempt; doubled for each further one.
        longest_back_off: the most seconds between attempts.
    """

    lease_seconds: float = 30.0
    per_owner: int | None = None
    running: int | None = None
    back_off: float = 5.0
    longest_back_off: float = 600.0


class Claims:
    """What workers do with the jobs of a store.

    Args:
        store: where.
        limits: of concurrency, leases and back-off.
    """

    def __init__(self, store: Store, limits: Limits | None = None) -> None:
        self.store = store
        self.limits = limits or Limits()

    def claim(self, worker: str, gpus: int = 0) -> Lease | None:
        """Take the next job: the highest priority, then the owner with the fewest running jobs, then the oldest.

        Jobs whose lease ran out are queued again (or given up) in the same transaction.

        Args:
            worker: who claims.
            gpus: that the worker has.

        Returns:
            The lease, or ``None`` if there is nothing to do.
        """
        if not self._anything(gpus):
            return None
        with self.store.writing() as session:
            one_at_a_time(session)
            self._recover(session)
            wanted = self._next(session, gpus)
            if wanted is None:
                return None
            job_id, epoch = wanted
            now = clock()
            changed = session.execute(
                update(Job)
                .where(Job.id == job_id, Job.state == "queued", Job.epoch == epoch)
                .values(
                    state="running",
                    reason="",
                    epoch=epoch + 1,
                    attempt=Job.attempt + 1,
                    worker=worker,
                    wish="",
                    not_before=None,
                    lease_until=now + self.limits.lease_seconds,
                    beat_at=now,
                    started_at=func.coalesce(Job.started_at, now),
                )
            )
            if changed.rowcount != 1:  # type: ignore[attr-defined]
                return None
            job = known(session, job_id)
            tell(session, job, "Running", "Claimed", f"attempt {job.attempt} of {job.most_attempts} by {worker}")
            return Lease(job_id, job.epoch, worker, self.limits.lease_seconds, job.attempt, job.gpus)

    def beat(self, lease: Lease, progress: Mapping[str, Any] | None = None) -> Wish:
        """Give a sign of life: the lease lasts from now on, and the time since the last sign counts as used.

        Returns:
            What the worker is to do: go on (""), "pause", "cancel", or stop because the job's time is "over".

        Raises:
            LeaseLost: it is not this worker's any more.
        """
        now = clock()
        values: dict[str, Any] = {
            "lease_until": now + lease.seconds,
            "beat_at": now,
            "seconds_used": Job.seconds_used + (now - Job.beat_at),
        }
        if progress is not None:
            values["progress"] = dict(progress)
        with self.store.writing() as session:
            check_lease(session, lease, alone=True)
            session.execute(update(Job).where(Job.id == lease.job_id).values(**values))
            wish, used, most = session.execute(
                select(Job.wish, Job.seconds_used, Job.most_seconds).where(Job.id == lease.job_id)
            ).one()
        if wish:
            found: Wish = "cancel" if wish == "cancel" else "pause"
            return found
        return "over" if most is not None and used > most else ""

    def finish(self, lease: Lease, end: End, reason: str, message: str = "") -> None:
        """End the attempt: the job has succeeded, failed, or stopped as it was asked to.

        Args:
            lease: of the worker.
            end: the state.
            reason: one word in CamelCase.
            message: one line for people.

        Raises:
            LeaseLost: it is not this worker's any more.
        """
        with self.store.writing() as session:
            check_lease(session, lease, alone=True)
            job = known(session, lease.job_id)
            stop(session, job, end)
            tell(session, job, end.capitalize(), reason, message)

    def give_back(
        self, lease: Lease, reason: str, message: str, *, counts: bool = True, later: bool | None = None
    ) -> str:
        """Queue the job again after an attempt that did not end it.

        Args:
            lease: of the worker.
            reason: one word in CamelCase.
            message: one line for people.
            counts: whether the attempt counts; one that was drained does not.
            later: whether the next attempt waits for the back-off; by default if this one counts.

        Returns:
            The state: queued, or failed where no attempt is left.

        Raises:
            LeaseLost: it is not this worker's any more.
        """
        with self.store.writing() as session:
            check_lease(session, lease, alone=True)
            job = known(session, lease.job_id)
            waits = counts if later is None else later
            delay = self._delay(job) if waits else 0.0
            if not counts:
                job.attempt -= 1
            return requeue(session, job, reason, message, delay)

    def recover(self) -> int:
        """Queue the jobs again whose lease ran out (those without attempts left have failed); how many they were."""
        with self.store.writing() as session:
            one_at_a_time(session)
            return self._recover(session)

    def _anything(self, gpus: int) -> bool:
        """Whether a job waits or a lease has run out; idle workers look without holding up those that claim."""
        now = clock()
        expired = select(Job.id).where(Job.state == "running", Job.lease_until < now)
        with self.store.session() as session:
            query = select(or_(self._waiting(gpus).exists(), expired.exists()))
            return bool(session.scalar(query))

    def _waiting(self, gpus: int) -> Select[str, int]:
        """The jobs that a worker with so many GPUs may take: (id, epoch)."""
        return (
            select(Job.id, Job.epoch)
            .where(Job.state == "queued", ~Job.local, ~Job.waiting, Job.gpus <= gpus)
            .where(or_(Job.not_before.is_(None), Job.not_before <= clock()))
        )

    def _next(self, session: Session, gpus: int) -> tuple[str, int] | None:
        """Id and epoch of the job to claim."""
        limit = self.limits.running
        if limit is not None:
            running = session.scalar(select(func.count()).where(Job.state == "running", ~Job.local))
            if (running or 0) >= limit:
                return None
        other = aliased(Job)
        busy = (
            select(other.owner, func.count().label("jobs"))
            .where(other.state == "running", ~other.local)
            .group_by(other.owner)
            .subquery()
        )
        jobs = func.coalesce(busy.c.jobs, 0)
        query = (
            self._waiting(gpus)
            .outerjoin(busy, busy.c.owner == Job.owner)
            .order_by(Job.priority.desc(), jobs, Job.queued_at, Job.id)
            .limit(1)
        )
        if self.limits.per_owner is not None:
            query = query.where(jobs < self.limits.per_owner)
        row = session.execute(query).first()
        return None if row is None else (row[0], row[1])

    def _recover(self, session: Session) -> int:
        """Every running job whose lease ran out: its wish is done, else it is queued again.

        A row that a stopped process holds in a transaction is left for later, when the database has ended that.
        """
        query = select(Job).where(Job.state == "running", Job.lease_until < clock())
        expired = list(session.scalars(query.with_for_update(skip_locked=True)))
        for job in expired:
            message = f"no sign of {job.worker} for {self.limits.lease_seconds:g} s"
            if job.local:
                stop(session, job, "paused")
                tell(session, job, "Paused", "LeaseExpired", f"{message}; run it again to go on")
            elif job.wish:
                end: End = "cancelled" if job.wish == "cancel" else "paused"
                stop(session, job, end)
                tell(session, job, end.capitalize(), "LeaseExpired", f"{message}; it had been asked to {job.wish}")
            else:
                requeue(session, job, "LeaseExpired", message, self._delay(job))
        return len(expired)

    def _delay(self, job: Job) -> float:
        """Seconds before the next attempt."""
        return float(min(self.limits.back_off * 2.0 ** max(job.attempt - 1, 0), self.limits.longest_back_off))


def one_at_a_time(session: Session) -> None:
    """Hold all other claims and submissions up until this transaction ends; SQLite has only one writer anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CLAIMS})
