"""The verb ``reproduce``: a job run again from its record, and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...errors import BitfrontError
from ..options import JobId, Json, StoreUrl


def reproduce_command(
    job_id: JobId,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="For the new run.  [default: out/reproduce/ID]")
    ] = None,
    executor: Annotated[str, typer.Option(help="local (this process) or ray (workers in parallel).")] = "local",
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="Relative difference of two measurements that does not count.")
    ] = 0.0,
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Run a job again from its record, in a fresh store, and compare every measurement, the front and the best.

    Reads the store itself, not a server. Exit code 1 if the runs differ by more than their intervals.

        bitfront reproduce 3f2a9c51d0e7

        bitfront reproduce 3f2a9c51d0e7 --store postgresql+psycopg://bitfront@db/bitfront --out out/again
    """
    from ...store import Store
    from ..reproduce import reproduce
    from ..terminal import TerminalProgress, show
    from .printing import print_json

    opened = Store(store)
    try:
        found = reproduce(
            job_id,
            opened,
            out or Path("out") / "reproduce" / job_id,
            executor=executor,
            tolerance=tolerance,
            progress=TerminalProgress(quiet=as_json),
        )
    finally:
        opened.close()
    if as_json:
        print_json(found.plain())
    else:
        show(*found.told())
    if not found.reproduced:
        raise BitfrontError(f"the runs of job {job_id} differ by more than their intervals")
