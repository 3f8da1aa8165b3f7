"""Jobs as people and programs read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..client_views import JobEvent, JobView


def plain(job: JobView) -> dict[str, Any]:
    """A job as plain data."""
    return {**asdict(job), "conditions": [dict(each) for each in job.conditions]}


def moment(at: float | None) -> str:
    """A moment in local time; empty for none."""
    return "" if at is None else datetime.fromtimestamp(at).isoformat(sep=" ", timespec="seconds")


def progress_line(job: JobView) -> str:
    """State of a job, and how far it has come."""
    if job.state != "running":
        waits = " for measurements" if job.waiting and job.state == "queued" else ""
        return f"{job.state}{waits}"
    wish = f", asked to {job.wish}" if job.wish else ""
    return f"running{wish}{_stage(job.progress)}"


def job_lines(job: JobView) -> list[str]:
    """A job in a few lines."""
    used = f", {timedelta(seconds=round(job.seconds_used))} of workers' time" if job.seconds_used else ""
    lines = [
        f"job       {job.id} {job.name}".rstrip(),
        f"state     {progress_line(job)}",
        f"because   {job.reason}",
        f"attempt   {job.attempt} of {job.most_attempts}{used}",
        f"owner     {job.owner or 'nobody'}, priority {job.priority}",
        f"queued    {moment(job.created_at)}",
    ]
    if job.started_at is not None:
        lines.append(f"started   {moment(job.started_at)}")
    if job.finished_at is not None:
        lines.append(f"ended     {moment(job.finished_at)}")
    return lines


def condition_lines(job: JobView) -> list[str]:
    """What became true of a job, a line each."""
    return [
        f"{moment(each['at'])}  {each['type']:<10} {each['reason']:<14} {each['message']}" for each in job.conditions
    ]


def event_line(event: JobEvent) -> str:
    """An event in one line; empty for what has nothing to say to people."""
    content = event.content
    if event.kind == "log":
        return str(content.get("line", ""))
    if event.kind == "stage":
        started = content.get("state") == "started"
        detail = (
            f"started ({content.get('total')} steps)" if started else f"done in {content.get('seconds', 0.0):.2f} s"
        )
        return f"{content.get('stage')}: {detail}"
    if event.kind == "evaluation":
        return (
            f"measured {str(content.get('configuration'))[:12]}: {content.get('metric')} {content.get('value'):.4g} "
            f"on {content.get('split')}"
        )
    if event.kind == "progress":
        return str(content.get("status", ""))
    return str(content.get("message", ""))


def _stage(progress: Mapping[str, Any]) -> str:
    if not progress.get("stage"):
        return ""
    eta = progress.get("eta_seconds")
    left = "" if eta is None else f", about {timedelta(seconds=round(eta))} left"
    return f": {progress['stage']}, {progress.get('done', 0):.0f} of {progress.get('total', 0):.0f}{left}"
