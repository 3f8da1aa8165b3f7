"""What a client gives back: jobs, events and files, as frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

#: A job in one of them runs no further by itself.
ENDED = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class JobView:
    """A job as the server tells it.

    Attributes:
        id: of the job.
        name: shown to people.
        kind: ``search``, which has a front, or ``export``.
        state: ``queued``, ``running``, ``paused``, ``succeeded``, ``failed`` or ``cancelled``.
        reason: message of the newest condition.
        owner: who submitted it.
        priority: higher ones first.
        attempt: claims so far.
        most_attempts: claims before it counts as failed.
        wish: what its worker was asked and has not done yet: ``pause``, ``cancel`` or nothing.
        waiting: whether measurements are missing that it needs.
        created_at: seconds since 1970.
        started_at: seconds since 1970; ``None``: not yet.
        finished_at: seconds since 1970; ``None``: not yet.
        seconds_used: of workers' time, over all attempts.
        most_seconds: of workers' time; ``None``: no limit.
        progress: ``stage``, ``done``, ``total``, ``eta_seconds``, ``evaluated``, ``evaluations``, ``status``.
        specification: what was asked; empty in lists.
        record: what it takes to run it again; empty in lists.
        conditions: what became true of it, in order; empty in lists.
    """

    id: str
    name: str
    state: str
    kind: str = "search"
    reason: str = ""
    owner: str = ""
    priority: int = 0
    attempt: int = 0
    most_attempts: int = 1
    wish: str = ""
    waiting: bool = False
    created_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    seconds_used: float = 0.0
    most_seconds: float | None = None
    progress: Mapping[str, Any] = field(default_factory=dict)
    specification: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    conditions: tuple[Mapping[str, Any], ...] = ()

    @property
    def ended(self) -> bool:
        """Whether it has succeeded, failed or been cancelled."""
        return self.state in ENDED

    @staticmethod
    def of(found: Mapping[str, Any]) -> JobView:
        """From the server's answer; what a newer server adds is left out."""
        known = {each.name: found[each.name] for each in fields(JobView) if each.name in found}
        return JobView(**{**known, "conditions": tuple(known.get("conditions") or ())})


@dataclass(frozen=True)
class JobEvent:
    """Something that a job told while it ran.

    Attributes:
        id: they rise; a stream goes on after the last one that is known.
        kind: ``log``, ``stage``, ``progress``, ``evaluation``, ``condition``, ….
        content: plain data.
    """

    id: int
    kind: str
    content: Mapping[str, Any]


@dataclass(frozen=True)
class ArtifactView:
    """A file that a job wrote.

    Attributes:
        name: its path below the job's output folder.
        bytes: size.
        sha256: of its content.
    """

    name: str
    bytes: int
    sha256: str
