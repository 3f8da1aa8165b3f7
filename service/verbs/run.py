"""The verb ``run``: a search, from the job file to the output folder."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import InvalidInput
from ..options import Json, StoreUrl


def run_command(
    job_file: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job; examples/ has some to start from.")],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder for the results, or its URL.")],
    executor: Annotated[str, typer.Option(help="ray (workers in parallel) or local (this process).")] = "ray",
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Search: score, price, allocate exactly, measure, validate, export.

    Stopped or killed, the same command goes on where it was: nothing that was measured is measured again.

        bitfront run examples/efficientnet_lite0.yaml --out out/demo
    """
    from ..job import read_job

    job, folder = read_job(job_file)
    from ..locations import is_url, writable_folder
    from ..run_job import run_job
    from ..terminal import TerminalProgress, best_table, front_table, search_lines, show

    if not is_url(out) and Path(out).exists() and not Path(out).is_dir():
        raise InvalidInput(f"--out {out} is a file; give a folder")
    with writable_folder(out) as place:
        progress = TerminalProgress(place / "run.log", quiet=as_json)
        try:
            _, document = run_job(job, folder, place, store=store, executor=executor, progress=progress, shown_as=out)
        except Exception:
            if place.is_dir():
                with (place / "run.log").open("a") as log:
                    log.write(traceback.format_exc())
            raise
    if as_json:
        print(json.dumps(document, allow_nan=False))  # noqa: T201
        return
    shown = out.rstrip("/")
    exported = [f"exported  {shown}/{found['path']} ({_told(found)})" for found in document["exports"]]
    show(
        front_table(document),
        best_table(document),
        f"best      {document['best']}: {document['best_reason']}",
        *search_lines(document),
        f"report    {shown}/report.html",
        *(f"note      {note}" for note in document["notes"]),
        *exported,
        *([] if is_url(out) else [f"look      bitfront dashboard {Path(out).parent}"]),
    )


def _told(found: dict[str, Any]) -> str:
    """Target, size and check back of an export."""
    size = f"{found['target']}, {found['bytes_on_disk'] / 1e6:.2f} MB"
    if found["relative_error"] is None:
        return f"{size}, nothing in it to run"
    return (
        f"{size}, relative error {found['relative_error']:.2g} against the fake-quantized model, "
        f"bound {found['bound']:.2g}"
    )
