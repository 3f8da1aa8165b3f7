"""The verb ``submit``: a job for a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import BitfrontError
from ..options import Json, ServerUrl

if TYPE_CHECKING:
    from ..client import Client
    from ..client_views import JobView


def submit_command(
    job_file: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job; its data files are sent along.")],
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it has ended; exit code 1 if it did not succeed.")
    ] = False,
    priority: Annotated[int, typer.Option(help="Higher ones first.")] = 0,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="TEXT", help="The same key again gives the same job.  [default: a new one]"),
    ] = None,
    attempts: Annotated[
        int | None, typer.Option(min=1, help="Before a job that kills its workers counts as failed.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Of workers' time that it may use.")] = None,
    server: ServerUrl = None,
    as_json: Json = False,
) -> None:
    """Submit a job to a server.

    Files of data and weights that the job names are sent first, under their content: a second job with them sends
    nothing.

        bitfront submit job.yaml

        bitfront submit job.yaml --priority 5 --wait

        bitfront submit job.yaml --key nightly-2026-11-22 --server https://bitfront.example.org
    """
    from ..client import Client
    from ..terminal import show
    from .job_printing import job_lines, plain

    with Client(server) as client:
        found = client.submit(job_file, idempotency_key=key, priority=priority, attempts=attempts, seconds=seconds)
        if wait:
            found = _waited(client, found, as_json)
    if as_json:
        from .printing import print_json

        print_json(plain(found))
    else:
        follow = [] if wait else [f"follow    bitfront logs {found.id} -f"]
        show(*job_lines(found), *follow)
    if wait and found.state != "succeeded":
        raise BitfrontError(f"job {found.id} is {found.state}: {found.reason}")


def _waited(client: Client, job: JobView, quiet: bool) -> JobView:
    """The job when it has ended; what it does meanwhile goes to standard error."""
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
            f"job {job.id} goes on without you; `bitfront logs {job.id} -f` follows it, `bitfront cancel {job.id}` ends it"
        ) from None
