"""The queue of jobs as people see it: submission, lists, and what may be asked of a job.

=========  =============================================================================
state      goes to
=========  =============================================================================
queued     running (claim), paused, cancelled
running    succeeded, failed, paused, cancelled, queued (its worker died or was drained)
paused     queued (resume), cancelled
failed     queued (retry)
cancelled  queued (retry)
succeeded  (nothing)
=========  =============================================================================

A change and the condition that tells of it are one transaction. Times are the database's.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import func, or_, select

from ..errors import Conflict
from .claims import one_at_a_time
from .clock import now
from .queue_models import Condition, Job
from .store import Store
from .transitions import known, leave, stop, tell


@dataclass(frozen=True)
class Submission:
    """What to queue.

    Attributes:
        name: shown to people.
        specification: the job as written.
        owner: who submits it.
        key: idempotency key: a second submission of the owner with it gives the first one's job.
        priority: higher ones first.
        out: folder or URL of the outputs; empty: the service decides.
        most_attempts: claims before a job that kills its workers counts as failed.
        most_seconds: of workers' time over all attempts.
        needs: devices whose measured tables it needs.
        waiting: whether one of those tables is missing yet.
        gpus: that its worker must have.
        record: what is known of how to run it again.
    """

    name: str
    specification: Mapping[str, Any]
    owner: str = ""
    key: str | None = None
    priority: int = 0
    out: str = ""
    most_attempts: int = 3
    most_seconds: float | None = None
    needs: Sequence[str] = ()
    waiting: bool = False
    gpus: int = 0
    record: Mapping[str, Any] | None = None


class Queue:
    """Jobs waiting, running and ended, in a store.

    Args:
        store: where.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    # -- submitting and asking ----------------------------------------------------------------------------------------

    def submit(self, asked: Submission) -> tuple[Job, bool]:
        """Queue a job.

        Returns:
            The job, and whether it is new: a known idempotency key gives the job of its first submission.

        Raises:
            Conflict: the key was used for another specification.
        """
        with self.store.writing() as session:
            if asked.key is not None:
                one_at_a_time(session)
                earlier = session.scalar(select(Job).where(Job.owner == asked.owner, Job.submission == asked.key))
                if earlier is not None:
                    if earlier.specification != dict(asked.specification):
                        raise Conflict(
                            f"idempotency key {asked.key!r} belongs to job {earlier.id}, which asks otherwise"
                        )
                    return earlier, False
            job = Job(
                id=secrets.token_hex(6),
                name=asked.name,
                specification=dict(asked.specification),
                state="queued",
                reason="",
                out=asked.out,
                local=False,
                owner=asked.owner,
                submission=asked.key,
                priority=asked.priority,
                most_attempts=asked.most_attempts,
                most_seconds=asked.most_seconds,
                needs=list(asked.needs),
                waiting=asked.waiting,
                gpus=asked.gpus,
                record=dict(asked.record or {}),
                queued_at=now(session),
            )
            session.add(job)
            session.flush()
            missing = f"; waits for measurements of {', '.join(asked.needs)}" if asked.waiting else ""
            tell(session, job, "Queued", "Submitted", f"submitted by {asked.owner or 'nobody in particular'}{missing}")
            return job, True

    def job(self, job_id: str) -> Job:
        """A job.

        Raises:
            NotFound: there is none.
        """
        with self.store.session() as session:
            return known(session, job_id)

    def conditions(self, job_id: str) -> list[Condition]:
        """What became true of a job, in order."""
        with self.store.session() as session:
            return list(session.scalars(select(Condition).where(Condition.job_id == job_id).order_by(Condition.id)))

    def list(
        self,
        *,
        states: Sequence[str] = (),
        owner: str | None = None,
        name: str = "",
        before: tuple[float, str] | None = None,
        count: int = 50,
    ) -> list[Job]:
        """A page of jobs, the newest first.

        Args:
            states: only these.
            owner: only theirs.
            name: only names that contain this.
            before: (created_at as a timestamp, id) of the last job of the page before.
            count: jobs on a page.
        """
        query = select(Job)
        if states:
            query = query.where(Job.state.in_(states))
        if owner is not None:
            query = query.where(Job.owner == owner)
        if name:
            query = query.where(Job.name.contains(name, autoescape=True))
        if before is not None:
            moment, last = before
            at = func.coalesce(Job.queued_at, 0.0)
            query = query.where(or_(at < moment, (at == moment) & (Job.id > last)))
        query = query.order_by(func.coalesce(Job.queued_at, 0.0).desc(), Job.id).limit(count)
        with self.store.session() as session:
            return list(session.scalars(query))

    def counts(self) -> dict[str, int]:
        """Number of jobs by state."""
        with self.store.session() as session:
            rows = session.execute(select(Job.state, func.count()).group_by(Job.state))
            return {row[0]: row[1] for row in rows}

    # -- what people ask ----------------------------------------------------------------------------------------------

    def pause(self, job_id: str, by: str = "") -> Job:
        """Stop a job so that it can go on: at once where it waits, after what is being measured where it runs.

        Raises:
            NotFound: no such job.
            Conflict: it has ended, or is being cancelled.
        """
        return self._ask(job_id, "pause", "paused", by)

    def cancel(self, job_id: str, by: str = "") -> Job:
        """End a job: at once where it waits or is paused; its worker stops where it runs.

        Raises:
            NotFound: no such job.
            Conflict: it has ended.
        """
        return self._ask(job_id, "cancel", "cancelled", by)

    def resume(self, job_id: str, by: str = "") -> Job:
        """Queue a paused job again; what was measured is not measured again.

        Raises:
            NotFound: no such job.
            Conflict: it is not paused.
        """
        return self._again(job_id, ("paused",), "Resumed", by)

    def retry(self, job_id: str, by: str = "") -> Job:
        """Queue a failed or cancelled job again, with all its attempts.

        Raises:
            NotFound: no such job.
            Conflict: it has neither failed nor been cancelled.
        """
        return self._again(job_id, ("failed", "cancelled"), "Retried", by)

    def measured(self, devices: Sequence[str]) -> int:
        """Let the jobs go on that waited for measurements of devices which are all there now; how many they are."""
        released = 0
        with self.store.writing() as session:
            for job in session.scalars(select(Job).where(Job.waiting, Job.state == "queued")):
                if set(job.needs) <= set(devices):
                    job.waiting = False
                    tell(session, job, "Queued", "Measured", f"there are measurements of {', '.join(job.needs)} now")
                    released += 1
        return released

    # -- inside a transaction -----------------------------------------------------------------------------------------

    def _ask(self, job_id: str, wish: Literal["pause", "cancel"], state: str, by: str) -> Job:
        with self.store.writing() as session:
            job = known(session, job_id, lock=True)
            who = by or "somebody"
            if job.state == "running":
                if job.wish == "cancel" and wish == "pause":
                    raise Conflict(f"job {job_id} is being cancelled")
                if job.wish != wish:
                    job.wish = wish
                    tell(session, job, "Stopping", wish.capitalize(), f"{who} asked to {wish} it")
                return job
            if job.state == state:
                return job
            if job.state == "queued" or (job.state == "paused" and wish == "cancel"):
                stop(session, job, state)
                tell(session, job, state.capitalize(), "Asked", f"{who} asked to {wish} it")
                return job
            raise Conflict(f"job {job_id} is {job.state}: there is nothing to {wish}")

    def _again(self, job_id: str, states: Sequence[str], reason: str, by: str) -> Job:
        with self.store.writing() as session:
            job = known(session, job_id, lock=True)
            if job.state not in states or job.local:
                verb = "resume" if reason == "Resumed" else "retry"
                where = "run locally; run it again with `bitfront run`" if job.local else job.state
                raise Conflict(f"job {job_id} is {where}: there is nothing to {verb}")
            job.attempt, job.not_before, job.finished_at = 0, None, None
            leave(session, job, "queued")
            job.queued_at = now(session)
            tell(session, job, "Queued", reason, f"by {by or 'somebody'}")
            return job
