"""The heartbeat of a running job: a thread that keeps its lease, and tells when it is lost or something is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from ...errors import LeaseLost
from ...store import Claims, Lease, Wish

_BEATS_PER_LEASE = 4
_LONGEST = 3.0  # seconds between two beats, so that wishes are heard soon


class Heartbeat:
    """Beats several times a lease until it is stopped; use it as a context manager.

    An error of the database does not end it: it tries on, until the lease must have run out by this machine's own
    count, from the start of the last sign of life that was answered. The database counts from its end, so this count is
    never the later one. A database that does not answer at all is seen by the same count, from another thread.

    Args:
        claims: of the queue.
        lease: to keep.
        progress: gives what is told with each beat.

    Attributes:
        wish: what was asked last: "", "pause", "cancel" or "over".
    """

    def __init__(self, claims: Claims, lease: Lease, progress: Callable[[], dict[str, Any] | None]) -> None:
        self._claims, self._lease, self._progress = claims, lease, progress
        self.wish: Wish = ""
        self._held = time.monotonic()
        self._refused = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat-{lease.job_id}", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._stop.set()  # not joined: it may wait for a database that never answers

    @property
    def lost(self) -> str:
        """Why the lease is gone; empty while it holds."""
        silent = time.monotonic() - self._held
        if not self._refused and silent > self._lease.seconds:
            return f"job {self._lease.job_id}: the database has not answered for {silent:.0f} s, so the lease is over"
        return self._refused

    def _run(self) -> None:
        pause = min(self._lease.seconds / _BEATS_PER_LEASE, _LONGEST)
        while not self._stop.wait(pause) and not self.lost:
            begun = time.monotonic()
            try:
                self.wish = self._claims.beat(self._lease, self._progress()) or self.wish
            except LeaseLost as cause:
                if not self._stop.is_set():
                    self._refused = str(cause)
            except SQLAlchemyError:
                continue  # the count goes on
            else:
                self._held = begun
