"""The verb ``reproduce``: a job run again from its record, and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import JobId, Json, StoreUrl


def reproduce_command(
    job_id: JobId,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="For the new run.  [default: out/reproduce/ID]")
    ] = None,
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Run a job again from its record, in a fresh store, and compare every measurement, the front and the best.

    Exit code 1 if they differ.

        bitfront reproduce 3f2a9c51d0e7
    """
    from ..reproduce import reproduce

    raise NotImplementedError(reproduce, job_id, out, store, as_json)
