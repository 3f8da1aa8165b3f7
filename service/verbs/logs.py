"""The verb ``logs``: what a job told while it ran."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from ..options import JobId, Json, ServerUrl


def logs_command(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    server: ServerUrl = None,
    as_json: Json = False,
) -> None:
    """Print the log of a job; with -f as it comes, until the job has ended.

    With --json every event is one JSON document on a line.

        bitfront logs 3f2a9c51d0e7 -f
    """
    from ..client import Client
    from .job_printing import event_line
    from .printing import print_json

    with Client(server) as client:
        if not follow:
            sys.stdout.write(client.log(job_id, structured=as_json))
            return
        for event in client.events(job_id):
            if as_json:
                print_json(asdict(event))
            elif line := event_line(event):
                print(line, flush=True)  # noqa: T201
