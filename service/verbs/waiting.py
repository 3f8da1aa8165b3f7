"""Waiting for a job at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import BitfrontError

if TYPE_CHECKING:
    from ..client import Client
    from ..client_views import JobView


def waited(client: Client, job: JobView, quiet: bool) -> JobView:
    """The job when it has ended or is paused; what it does meanwhile goes to standard error.

    Raises:
        BitfrontError: the wait was interrupted, or the server cannot be reached; the job goes on.
    """
    from rich.console import Console

    from .job_printing import progress_line

    console = Console(stderr=True, quiet=quiet)
    shown = ""
    try:
        with console.status(f"job {job.id}: {job.state}") as status:

            def watch(found: JobView) -> None:
                nonlocal shown
                line = f"job {found.id}: {progress_line(found)}"
                status.update(line)
                stage = f"{found.state} {found.progress.get('stage', '')}"
                if not console.is_terminal and stage != shown:
                    console.print(line, highlight=False, markup=False)
                shown = stage

            return client.wait(job.id, watch=watch)
    except KeyboardInterrupt:
        raise BitfrontError(
            f"job {job.id} goes on without you: `bitfront logs {job.id} -f` follows it, `bitfront cancel {job.id}` "
            "ends it"
        ) from None
