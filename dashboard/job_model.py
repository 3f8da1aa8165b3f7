"""Jobs as a table and as text: states, progress, times, what may be done with one."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ..service.client_views import ENDED, JobView

if TYPE_CHECKING:
    import pandas as pd

STATES = ("queued", "running", "paused", "succeeded", "failed", "cancelled")
MARKS = {"queued": "◌", "running": "▶", "paused": "⏸", "succeeded": "✔", "failed": "✖", "cancelled": "⊘"}
ACTIONS = {
    "queued": ("pause", "cancel"),
    "running": ("pause", "cancel"),
    "paused": ("resume", "cancel"),
    "failed": ("retry",),
    "cancelled": ("retry",),
    "succeeded": (),
}
"""What may be asked of a job in each state."""


def jobs_table(jobs: Iterable[JobView]) -> pd.DataFrame:
    """A row for each job: id, name, state with its mark, progress 0 to 1, time left, owner, times, reason."""
    import pandas as pd

    rows = [
        (
            job.id,
            job.name,
            f"{MARKS.get(job.state, '')} {job.state}" + (f", to {job.wish}" if job.wish else ""),
            fraction(job),
            stage_text(job),
            job.owner,
            moment(job.created_at),
            duration(job.seconds_used),
            job.reason,
        )
        for job in jobs
    ]
    names = ["id", "name", "state", "progress", "stage", "owner", "submitted (UTC)", "worked", "reason"]
    return pd.DataFrame(rows, columns=pd.Index(names))


def fraction(job: JobView) -> float | None:
    """How much of its evaluations a job has made, 0 to 1; ``None`` before it has begun."""
    if job.state == "succeeded":
        return 1.0
    asked, made = job.progress.get("evaluations"), job.progress.get("evaluated")
    return min(1.0, made / asked) if asked and made is not None else None


def stage_text(job: JobView) -> str:
    """What a running job does and how long it will, such as ``search, 12 of 48, about 0:01:20 left``."""
    if job.state in ENDED or not job.progress:
        return ""
    told = str(job.progress.get("stage") or "")
    done, total = job.progress.get("done"), job.progress.get("total")
    if total:
        told += f", {done or 0} of {total}"
    eta = job.progress.get("eta_seconds")
    return told + (f", about {duration(eta)} left" if eta else "")


def moment(seconds: float | None) -> str:
    """A time since 1970 as UTC to the second; empty for ``None``."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float | None) -> str:
    """Hours, minutes, seconds, such as ``0:01:20``; empty for ``None``."""
    if seconds is None:
        return ""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def tail(log: str, lines: int = 60) -> str:
    """The last lines of a log."""
    return "\n".join(log.splitlines()[-lines:])


def conditions_table(job: JobView) -> pd.DataFrame:
    """What became true of a job, in order: time, type, reason, message."""
    import pandas as pd

    rows = [
        (
            moment(each["at"]),
            each["type"],
            each["reason"],
            each["message"],
        )
        for each in job.conditions
    ]
    return pd.DataFrame(rows, columns=pd.Index(["time (UTC)", "what", "reason", "message"]))
