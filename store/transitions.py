"""Changes of a job's state inside a transaction, each with the condition that tells of it."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..errors import NotFound
from .clock import now
from .queue_models import Condition, Job


def known(session: Session, job_id: str, *, lock: bool = False) -> Job:
    """A job; with ``lock`` nobody else changes it until the transaction ends.

    Raises:
        NotFound: there is none.
    """
    query = select(Job).where(Job.id == job_id)
    job = session.scalar(query.with_for_update() if lock else query)
    if job is None:
        raise NotFound(f"no job {job_id!r}; `bitfront jobs` lists them")
    return job


def leave(session: Session, job: Job, state: str) -> None:
    """Take a job from its worker, whose epoch is over and whose time is counted up to the end of its lease."""
    if job.beat_at is not None and job.lease_until is not None:
        job.seconds_used += max(0.0, min(now(session), job.lease_until) - job.beat_at)
    job.state, job.worker, job.lease_until, job.beat_at, job.wish = state, "", None, None, ""
    job.epoch += 1


def stop(session: Session, job: Job, state: str) -> None:
    """Take a job out of the queue: ended, or paused."""
    leave(session, job, state)
    job.finished_at = None if state == "paused" else now(session)


def requeue(session: Session, job: Job, reason: str, message: str, delay: float) -> str:
    """Queue a job again after an attempt that did not end it, or give it up if no attempt is left.

    Args:
        session: of the transaction.
        job: which.
        reason: one word in CamelCase.
        message: one line for people.
        delay: seconds before it may be claimed.

    Returns:
        The state: queued or failed.
    """
    if job.attempt >= job.most_attempts:
        stop(session, job, "failed")
        tell(session, job, "Failed", reason, f"{message}; no attempt is left of {job.most_attempts}")
        return "failed"
    leave(session, job, "queued")
    job.not_before = now(session) + delay if delay > 0 else None
    tell(session, job, "Queued", reason, f"{message}; again in {delay:g} s" if delay > 0 else message)
    return "queued"


def tell(session: Session, job: Job, kind: str, reason: str, message: str) -> None:
    """Record what became true of a job; the message is its reason from now on."""
    job.reason = message
    entry = Condition(job_id=job.id, type=kind, reason=reason, message=message, attempt=job.attempt, at=now(session))
    session.add(entry)
