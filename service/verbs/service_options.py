"""Options that ``serve`` and ``worker`` share, and the settings that they make."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import InvalidInput
from ..settings import Settings
from ..settings_file import CONFIG_VARIABLE, read_settings, with_options

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE.yaml", help=f"Settings; options go before it.  [default: ${CONFIG_VARIABLE}]"
    ),
]
Outputs = Annotated[
    str | None,
    typer.Option("--outputs", metavar="DIR", help="Folder or URL of the jobs' files.  [default: .bitfront/jobs]"),
]
JobsAtATime = Annotated[int | None, typer.Option("--jobs", min=1, help="That a worker runs at a time.  [default: 1]")]
Gpus = Annotated[int | None, typer.Option("--gpus", min=0, help="That a worker may give to jobs.  [default: 0]")]
Executor = Annotated[
    str | None, typer.Option(help="ray (a job measures in parallel) or local (in one process).  [default: ray]")
]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray-address", metavar="URL", help="Of a Ray cluster for all jobs.  [default: one for each job]"),
]
AllowModule = Annotated[
    list[str] | None,
    typer.Option("--allow-module", metavar="MODULE", help="Whose functions jobs may name as factory; repeatable."),
]
AllowUrl = Annotated[
    list[str] | None,
    typer.Option("--allow-url", metavar="URL", help="Beginning of URLs that jobs may read; repeatable."),
]
KeepDays = Annotated[
    float | None,
    typer.Option("--keep-days", help="Until the files of an ended job are removed.  [default: they are kept]"),
]


def settings_of(config: Path | None, **options: Any) -> Settings:
    """The settings of a file and the options of the command line, which go before it.

    Raises:
        InvalidInput: the file cannot be used, or an option has no such choice.
    """
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    settings = with_options(read_settings(config or os.environ.get(CONFIG_VARIABLE)), **given)
    if settings.keep_days is not None and not settings.keep_days > 0:
        raise InvalidInput(f"--keep-days {settings.keep_days:g}: give a time above 0")
    if settings.executor not in ("ray", "local"):
        raise InvalidInput(f"--executor {settings.executor!r}; choose ray or local")
    return settings
