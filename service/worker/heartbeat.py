"""The heartbeat of a running job: a thread that keeps its lease, and tells when it is lost or something is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from ...errors import LeaseLost
from ...store import Claims, Lease, Wish
from ..errors_of_database import told

BEATS_PER_LEASE = 4


class Heartbeat:
    """Beats several times a lease until it is stopped.

    An error of the database does not end it: it tries on, until the lease must have run out by this machine's own
    count. Then, as when the database says that the lease is lost, the job is no longer this worker's.

    Args:
        claims: of the queue.
        lease: to keep.
        progress: gives what is told with each beat.
        asked: called with each wish that is not empty.
        lost: called once with the reason when the lease is gone.
    """

    def __init__(
        self,
        claims: Claims,
        lease: Lease,
        progress: Callable[[], dict[str, Any] | None],
        asked: Callable[[Wish], None],
        lost: Callable[[str], None],
    ) -> None:
        self._claims, self._lease = claims, lease
        self._progress, self._asked, self._lost = progress, asked, lost
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat-{lease.job_id}", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        held = time.monotonic()
        while not self._stop.wait(self._lease.seconds / BEATS_PER_LEASE):
            begun = time.monotonic()
            try:
                wish = self._claims.beat(self._lease, self._progress())
            except LeaseLost as cause:
                self._lost(str(cause))
                return
            except SQLAlchemyError as cause:
                if time.monotonic() - held > self._lease.seconds:
                    self._lost(f"the database has not answered for {self._lease.seconds:g} s: {told(cause)}")
                    return
                continue
            held = begun
            if wish:
                self._asked(wish)
