"""Leases: who may write for a job, and until when.

A worker that claims a job gets the job's next epoch. Every transaction in which it writes begins by asking whether the
job is still running under that epoch and the lease has not run out by the database's clock; if not, nothing is written.
So a worker that was stopped, cut off or overtaken cannot harm what its successor does, however late it wakes up.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, event, select
from sqlalchemy.orm import Session

from ..errors import LeaseLost
from .clock import clock
from .queue_models import Job
from .store import Store


@dataclass(frozen=True)
class Lease:
    """The right to write for a job.

    Attributes:
        job_id: of the job.
        epoch: raised at every claim; only the newest one may write.
        worker: who holds it.
        seconds: how long it lasts after each heartbeat.
        attempt: how often the job was claimed, this time included.
        gpus: that the job needs.
    """

    job_id: str
    epoch: int
    worker: str
    seconds: float
    attempt: int = 1
    gpus: int = 0


def check_lease(connection: Connection | Session, lease: Lease, *, alone: bool = False) -> None:
    """Whether a lease holds, and that it goes on holding until the end of this transaction.

    Args:
        connection: in a transaction that writes.
        lease: which.
        alone: whether the transaction changes the job's row itself.

    Raises:
        LeaseLost: the job was taken over, stopped or finished, or the lease ran out.
    """
    query = select(Job.id).where(
        Job.id == lease.job_id, Job.epoch == lease.epoch, Job.state == "running", Job.lease_until >= clock()
    )
    if connection.scalar(query.with_for_update(read=not alone)) is None:
        raise LeaseLost(
            f"job {lease.job_id}: {lease.worker} no longer holds it (epoch {lease.epoch}); nothing was written"
        )


class LeasedStore(Store):
    """A store that writes only while a lease holds; it reads like any other.

    A search that is run on it belongs to the leased job: it opens no job of its own, and how the job ends is for its
    worker to say.

    Args:
        source: as for ``Store``; or an open store, whose connections are shared.
        lease: under which is written.
    """

    def __init__(self, source: str | Store | None, lease: Lease) -> None:
        if isinstance(source, Store):
            self._share(source)
        else:
            super().__init__(source)
        self.lease = lease

        def fence(session: Session, transaction: Any, connection: Connection) -> None:
            check_lease(connection, lease)

        event.listen(self._writes, "after_begin", fence)

    def running_job(self, name: str, specification: Mapping[str, Any], out: str) -> AbstractContextManager[str]:
        """The leased job; how it ends is for its worker to say."""
        return nullcontext(self.lease.job_id)
