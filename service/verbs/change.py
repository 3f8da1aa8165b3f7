"""The verbs ``cancel``, ``pause``, ``resume`` and ``retry``: what may be asked of a job."""

from __future__ import annotations

from typing import Literal

from ..options import JobId, Json, ServerUrl


def cancel_command(job_id: JobId, server: ServerUrl = None, as_json: Json = False) -> None:
    """End a job: at once where it waits; where it runs its worker stops it within a heartbeat.

    bitfront cancel 3f2a9c51d0e7
    """
    _change("cancel", job_id, server, as_json)


def pause_command(job_id: JobId, server: ServerUrl = None, as_json: Json = False) -> None:
    """Stop a job so that it can go on later; what was measured is kept.

    bitfront pause 3f2a9c51d0e7
    """
    _change("pause", job_id, server, as_json)


def resume_command(job_id: JobId, server: ServerUrl = None, as_json: Json = False) -> None:
    """Queue a paused job again; it goes on where it was.

    bitfront resume 3f2a9c51d0e7
    """
    _change("resume", job_id, server, as_json)


def retry_command(job_id: JobId, server: ServerUrl = None, as_json: Json = False) -> None:
    """Queue a failed or cancelled job again, with all its attempts; what was measured is not measured again.

    bitfront retry 3f2a9c51d0e7
    """
    _change("retry", job_id, server, as_json)


def _change(
    verb: Literal["cancel", "pause", "resume", "retry"], job_id: str, server: str | None, as_json: bool
) -> None:
    from ..client import Client
    from ..terminal import show
    from .job_printing import plain, progress_line
    from .printing import print_json

    with Client(server) as client:
        found = getattr(client, verb)(job_id)
    if as_json:
        print_json(plain(found))
        return
    show(
        f"job       {found.id} {found.name}".rstrip(), f"state     {progress_line(found)}", f"because   {found.reason}"
    )
