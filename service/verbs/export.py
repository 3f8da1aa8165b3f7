"""The verb ``export``: a point of a front for a runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import BitfrontError
from ..options import Json, ServerUrl, is_job_id
from .printing import print_json

if TYPE_CHECKING:
    from ...exporters import ExportReport


def export_command(
    out: Annotated[str, typer.Argument(metavar="DIR|ID", help="Output folder of a finished run, or id of a job.")],
    point: Annotated[str, typer.Option(help="Id of a point (see `bitfront front`), or best.")] = "best",
    target: Annotated[str, typer.Option(help="Export target.")] = "onnx",
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="With an id: folder for the artifact.")] = Path("."),
    server: ServerUrl = None,
    as_json: Json = False,
) -> None:
    """Export a point for a runtime, load it back there, and compare it with what was measured.

    With the id of a job a server does it; the artifact is fetched when it is there.

        bitfront export out/demo --point best --target onnx

        bitfront export 3f2a9c51d0e7 --target onnx --to out
    """
    if is_job_id(out):
        _on_server(out, point, target, to, server, as_json)
        return
    from ..run_job import export_point
    from ..terminal import TerminalProgress, show

    report = export_point(Path(out), point, target, TerminalProgress(quiet=as_json))
    if as_json:
        print(json.dumps(report.to_dict(), allow_nan=False))  # noqa: T201
        return
    show(
        f"exported  {report.path}",
        f"size      {report.sizes}",
        f"checked   {report.checked}",
        *_measured(report),
        *(f"note      {note}" for note in report.notes),
    )


def _measured(report: ExportReport) -> list[str]:
    """Quality and latency of the artifact, as far as they were measured."""
    told = []
    if report.quality is not None:
        found = report.quality
        told.append(
            f"quality   {found.metric} {found.artifact:.4g}, fake-quantized {found.fake_quantized:.4g}, difference "
            f"[{found.low:.2g}, {found.high:.2g}] on {found.samples} samples"
        )
    for name, timing in (("latency", report.latency), ("float", report.float_latency)):
        if timing is not None:
            told.append(
                f"{name:<9} {timing.median_ms:.3f} ms [{timing.low_ms:.3f}, {timing.high_ms:.3f}] for {timing.batch} "
                f"samples, {timing.threads} thread"
            )
    return told


def _on_server(job_id: str, point: str, target: str, to: Path, server: str | None, as_json: bool) -> None:
    """Have a server export, wait for it, fetch the artifact."""
    from ..client import Client
    from ..terminal import show
    from .waiting import waited

    with Client(server) as client:
        made = waited(client, client.export(job_id, point, target), as_json)
        if made.state != "succeeded":
            raise BitfrontError(f"the export, job {made.id}, is {made.state}: {made.reason}")
        names = [each.name for each in client.artifacts(made.id) if each.name.startswith("export/")]
        files = [client.download(made.id, name, _below(to, name.removeprefix("export/"))) for name in names]
    if as_json:
        print_json({"job": made.id, "files": [str(file) for file in files]})
        return
    show(*(f"exported  {file} ({file.stat().st_size:,} bytes)" for file in files), f"because   {made.reason}")


def _below(folder: Path, name: str) -> Path:
    """A path below a folder.

    Raises:
        BitfrontError: the name leads out of it.
    """
    target = (folder / name).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise BitfrontError(f"the server names a file {name!r} that would lie outside {folder}; it is not fetched")
    return folder / name
