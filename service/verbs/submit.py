"""The verb ``submit``: a job for a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...errors import BitfrontError
from ..options import Json, ServerUrl


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
    from .waiting import waited

    with Client(server) as client:
        found = client.submit(job_file, idempotency_key=key, priority=priority, attempts=attempts, seconds=seconds)
        if wait:
            found = waited(client, found, as_json)
    if as_json:
        from .printing import print_json

        print_json(plain(found))
    else:
        follow = [] if wait else [f"follow    bitfront logs {found.id} -f"]
        show(*job_lines(found), *follow)
    if wait and found.state != "succeeded":
        raise BitfrontError(f"job {found.id} is {found.state}: {found.reason}")
