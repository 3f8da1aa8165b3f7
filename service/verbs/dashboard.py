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
    server: Annotated[
        str | None, typer.Option(help="URL of a bitfront server, to submit and watch its jobs; sign in with a token.")
    ] = None,
) -> None:
    """Open the dashboard: jobs, Pareto fronts, layer maps, devices.

    bitfront dashboard out

    bitfront dashboard --server http://127.0.0.1:8765
    """
    from importlib import import_module

    folders = paths or ([] if server else [Path("out")])
    for folder in folders:
        if not folder.is_dir():
            raise InvalidInput(
                f"no folder {folder}; run a search first, such as `bitfront run JOB.yaml --out out/NAME`"
            )
    # the dashboard is the floor above: the command finds it by name, nothing here depends on it
    import_module(f"{__package__.partition('.')[0]}.dashboard").launch(folders, host, port, server)
