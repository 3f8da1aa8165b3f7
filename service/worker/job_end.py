"""How a job's attempt ended, told to the queue."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from ...errors import LeaseLost
from ...store import Claims, Events, Lease, LeasedStore, Wish
from .heartbeat import Heartbeat
from .pipe import InHand, Outcome
from .quarantine import blame

#: signals that a process brings on itself; others came from outside and blame no candidate
_OWN = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS}
_AGAIN = 0.5  # seconds between two tries to tell a database that does not answer


@dataclass(frozen=True)
class Ended:
    """What is known of a process that has ended.

    Attributes:
        outcome: by its own account; ``None``: it died without a word.
        code: exit code; negative: the signal that killed it.
        in_hand: what it was evaluating.
        evaluated: whether it had evaluated anything.
        printed: its last lines.
        wish: what had been asked of it.
        drained: whether its worker is to end.
        killed: why its worker killed it; empty: it did not.
        progress: the last that it told.
        out_of_memory: whether the kernel killed processes of this machine meanwhile, because memory had run out.
    """

    outcome: Outcome | None
    code: int
    in_hand: InHand | None = None
    evaluated: bool = False
    printed: list[str] | None = None
    wish: Wish = ""
    drained: bool = False
    killed: str = ""
    progress: dict[str, Any] | None = None
    out_of_memory: bool = False

    @property
    def suspects(self) -> InHand | None:
        """What was in hand when the process brought its end on itself."""
        own = self.code >= 0 or signal.Signals(-self.code) in _OWN
        memory = self.code == -signal.SIGKILL and (self.out_of_memory or bool(self.killed))
        return self.in_hand if own or memory else None


class JobEnd:
    """Ends the lease of a job.

    Args:
        claims: of the queue.
        lease: of the job.
    """

    def __init__(self, claims: Claims, lease: Lease) -> None:
        self._claims, self._lease = claims, lease
        self._given_up: bool | None = None  # remembered once, however often the queue has to be told

    def failed_to_start(self, message: str) -> None:
        """There was no process."""
        with contextlib.suppress(LeaseLost):  # overtaken: the other one tells the queue
            self._claims.give_back(self._lease, "NotStarted", message)

    def tell(self, ended: Ended, heartbeat: Heartbeat) -> None:
        """Tell the queue, for as long as the lease may hold; a lost lease is told on standard error only."""
        while not heartbeat.lost:
            try:
                self._claims.beat(self._lease, ended.progress)
                self._tell(ended)
            except LeaseLost as cause:  # overtaken in the last moment: the other one tells the queue
                sys.stderr.write(f"bitfront worker: {cause}\n")
                return
            except SQLAlchemyError:
                time.sleep(_AGAIN)
                continue
            return
        sys.stderr.write(f"bitfront worker: {heartbeat.lost}\n")

    def _tell(self, ended: Ended) -> None:
        claims, lease, outcome = self._claims, self._lease, ended.outcome
        if outcome is not None and outcome.ending == "succeeded":
            claims.finish(lease, "succeeded", "Done", outcome.message)
        elif ended.wish == "pause":
            claims.finish(lease, "paused", "Asked", ended.killed or "stopped; what was measured is kept")
        elif ended.wish == "cancel":
            claims.finish(lease, "cancelled", "Asked", ended.killed or "stopped; what was measured is kept")
        elif ended.wish == "over":
            claims.finish(lease, "failed", "OutOfTime", "its budget of seconds is used up; what was measured is kept")
        elif ended.drained:
            claims.give_back(lease, "Drained", f"{lease.worker} was shut down", counts=False)
        elif outcome is not None and outcome.ending == "bad_input":
            claims.finish(lease, "failed", "BadInput", outcome.message)
        elif outcome is not None and outcome.ending == "unavailable":
            claims.give_back(lease, "StoreUnavailable", outcome.message, counts=False, later=True)
        elif outcome is not None:
            if self._given_up is None:
                self._given_up = self._remembered(ended, outcome.message)
            claims.give_back(lease, "Failed", outcome.message)
        else:
            self._died(ended)

    def _died(self, ended: Ended) -> None:
        """It was killed, or ended itself, without an account of its own."""
        if ended.killed:
            reason, cause = "Killed", f"killed by its worker: {ended.killed}"
        else:
            how = f"killed by {signal.Signals(-ended.code).name}" if ended.code < 0 else f"exit code {ended.code}"
            last = " | ".join((ended.printed or [])[-3:])
            reason, cause = "Crashed", f"its process ended without a word ({how}){': ' if last else ''}{last}"
        if self._given_up is None:
            self._given_up = self._remembered(ended, cause)
        suspects = ended.suspects
        if suspects is not None:
            cause += f"; it was evaluating {len(suspects.candidates)} candidate(s)"
            cause += ", which is given up" if self._given_up else ""
        # a death that brought the search on does not count: else a job with several such candidates would never end
        excused = suspects is not None and (self._given_up or ended.evaluated)
        self._claims.give_back(self._lease, reason, cause, counts=not excused)

    def _remembered(self, ended: Ended, cause: str) -> bool:
        """Keep what was printed and what was in hand; whether a candidate was given up."""
        store = LeasedStore(self._claims.store, self._lease)
        suspects = ended.suspects
        given_up = suspects is not None and blame(store, self._lease.job_id, suspects, cause)
        Events(store).add(self._lease.job_id, [("log", {"line": line}) for line in ended.printed or ()])
        return given_up
