"""The verb ``dashboard``: runs, Pareto fronts and layer maps in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...errors import InvalidInput


def dashboard_command(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[DIR]...", help="Folders of runs.  [default: out]")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8501,
) -> None:
    """Open the dashboard: runs, Pareto fronts, layer maps.

    bitfront dashboard out
    """
    from importlib import import_module

    folders = paths or [Path("out")]
    for folder in folders:
        if not folder.is_dir():
            raise InvalidInput(
                f"no folder {folder}; run a search first, such as `bitfront run JOB.yaml --out out/NAME`"
            )
    # the dashboard is the floor above: the command finds it by name, nothing here depends on it
    import_module(f"{__package__.partition('.')[0]}.dashboard").launch(folders, host, port)
