"""The verbs ``sweep`` and ``pin``: which files of ended jobs are kept."""

from __future__ import annotations

from typing import Annotated

import typer

from ...errors import InvalidInput
from ..options import JobId, Json, StoreUrl
from .printing import print_json
from .service_options import Config, KeepDays, Outputs, settings_of


def sweep_command(
    keep_days: KeepDays = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    store: StoreUrl = None,
    outputs: Outputs = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Remove the files and events of jobs that ended long ago; `bitfront serve --keep-days` does it every hour.

    The jobs themselves and all that was measured stay, so do the newest jobs of every owner and pinned ones.

        bitfront sweep --keep-days 30 --dry-run
    """
    from dataclasses import asdict

    from ...store import Store
    from ..retention import sweep
    from ..terminal import show

    settings = settings_of(config, store=store, outputs=outputs, keep_days=keep_days)
    if settings.keep_days is None:
        raise InvalidInput("give --keep-days, or keep_days in the settings file: nothing is removed without it")
    opened = Store(settings.store)
    try:
        found = sweep(opened, settings, dry=dry_run)
    finally:
        opened.close()
    if as_json:
        print_json(asdict(found))
        return
    verb = "would remove" if found.dry else "removed"
    show(
        f"{verb} {found.files} files ({found.bytes / 1e6:.1f} MB) and {found.events} events of {len(found.jobs)} jobs",
        *(f"left      {job_id}: {reason}" for job_id, reason in found.left.items()),
    )


def pin_command(
    job_id: JobId,
    off: Annotated[bool, typer.Option("--off", help="Let them go again.")] = False,
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Keep the files of a job for ever.

    bitfront pin 3f2a9c51d0e7
    """
    from ...store import Store
    from ..retention import pin

    opened = Store(store)
    try:
        pin(opened, job_id, not off)
    finally:
        opened.close()
    if as_json:
        print_json({"id": job_id, "pinned": not off})
        return
    print(f"job {job_id} {'is no longer' if off else 'is'} pinned")  # noqa: T201
