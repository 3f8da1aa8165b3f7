"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output instead of tables.")]
StoreUrl = Annotated[
    str | None,
    typer.Option("--store", help="SQLAlchemy URL of the store.  [default: $BITFRONT_STORE or .bitfront/store.db]"),
]
ServerUrl = Annotated[
    str | None,
    typer.Option(
        "--server", metavar="URL", help="URL of the server.  [default: $BITFRONT_SERVER or http://127.0.0.1:8765]"
    ),
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="Id of a job: `bitfront jobs` lists them.")]


def is_job_id(given: str) -> bool:
    """Whether an argument is the id of a job on a server, and not a folder that has such a name."""
    return re.fullmatch("[0-9a-f]{12}", given) is not None and not Path(given).exists()
