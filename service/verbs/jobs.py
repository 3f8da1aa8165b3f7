"""The verb ``jobs``: those of a server, or of the local store."""

from __future__ import annotations

import os
from itertools import islice
from typing import Annotated

import typer

from ...errors import InvalidInput
from ..options import Json, StoreUrl
from .printing import print_frame, print_json


def jobs_command(
    state: Annotated[str | None, typer.Option(help="Only in this state: queued, running, paused, …")] = None,
    owner: Annotated[str | None, typer.Option(help="Only theirs.")] = None,
    name: Annotated[str, typer.Option(help="Only names that contain this.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="The most to list.")] = 200,
    server: Annotated[
        str | None, typer.Option("--server", metavar="URL", help="Of the server.  [default: $BITFRONT_SERVER]")
    ] = None,
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """List the jobs of a server, newest first; without one those in the local store.

    bitfront jobs

    bitfront jobs --server http://127.0.0.1:8765 --state running
    """
    from ..client import SERVER_VARIABLE

    if server is not None and store is not None:
        raise InvalidInput("give --server or --store, not both: a server has its own store")
    if server is not None or (store is None and os.environ.get(SERVER_VARIABLE)):
        _of_server(server, state, owner, name, limit, as_json)
    else:
        _of_store(store, state, owner, name, limit, as_json)


def _of_server(server: str | None, state: str | None, owner: str | None, name: str, limit: int, as_json: bool) -> None:
    import pandas as pd

    from ..client import Client
    from ..terminal import show
    from .job_printing import moment, plain, progress_line

    with Client(server) as client:
        found = list(islice(client.jobs(state=state, owner=owner, name=name), limit))
    if as_json:
        print_json([plain(job) for job in found])
        return
    rows = [
        {
            "id": job.id,
            "name": job.name,
            "state": progress_line(job),
            "owner": job.owner,
            "priority": job.priority,
            "queued": moment(job.created_at),
            "reason": job.reason,
        }
        for job in found
    ]
    columns = ["id", "name", "state", "owner", "priority", "queued", "reason"]
    print_frame(pd.DataFrame(rows, columns=columns), as_json, show)


def _of_store(store: str | None, state: str | None, owner: str | None, name: str, limit: int, as_json: bool) -> None:
    import pandas as pd

    from ...store import JOB_STATES, Claims, Store
    from ..terminal import show

    if state is not None and state not in JOB_STATES:
        raise InvalidInput(f"--state {state!r}; choose {', '.join(JOB_STATES)}")
    known = Store(store)
    Claims(known).recover()  # what was killed is not running
    rows = [
        {
            "id": job.id,
            "name": job.name,
            "state": job.state,
            "updated": job.updated_at.isoformat(timespec="seconds"),
            "out": job.out,
            "reason": job.reason,
        }
        for job in known.jobs()
        if state in (None, job.state) and owner in (None, job.owner) and name in job.name
    ]
    columns = ["id", "name", "state", "updated", "out", "reason"]
    print_frame(pd.DataFrame(rows[:limit], columns=columns), as_json, show)
