"""The verb ``export``: a point of a front for a runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..options import Json


def export_command(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of a finished run.")],
    point: Annotated[str, typer.Option(help="Id of a point (see `bitfront front`), or best.")] = "best",
    target: Annotated[str, typer.Option(help="Export target.")] = "onnx",
    as_json: Json = False,
) -> None:
    """Export a point for a runtime, load it back there, and compare it with what was measured.

    bitfront export out/demo --point best --target onnx
    """
    from ..run_job import export_point
    from ..terminal import TerminalProgress, show

    report = export_point(out, point, target, TerminalProgress(quiet=as_json))
    if as_json:
        print(json.dumps(report.to_dict(), allow_nan=False))  # noqa: T201
        return
    show(
        f"exported  {report.path}",
        f"size      {report.bytes_on_disk / 1e6:.3f} MB (float: {report.float_bytes / 1e6:.3f} MB)",
        f"checked   {report.runtime} {report.version}: relative error {report.relative_error:.3g}, "
        f"bound {report.bound:.3g}",
    )
