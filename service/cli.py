"""The command line: its verbs by name, and how it ends."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import typer

from ..errors import BitfrontError, InvalidInput
from .verbs.bench import bench_app
from .verbs.change import cancel_command, pause_command, resume_command, retry_command
from .verbs.dashboard import dashboard_command
from .verbs.devices import devices_command
from .verbs.doctor import doctor_command
from .verbs.export import export_command
from .verbs.formats import formats_command
from .verbs.front import front_command
from .verbs.jobs import jobs_command
from .verbs.logs import logs_command
from .verbs.measure import measure_command
from .verbs.proxies import proxies_app
from .verbs.reproduce import reproduce_command
from .verbs.run import run_command
from .verbs.serve import serve_command
from .verbs.show import show_command
from .verbs.submit import submit_command
from .verbs.sweep import pin_command, sweep_command
from .verbs.users import users_app
from .verbs.worker import worker_command

app = typer.Typer(
    name="bitfront",
    help="Mixed-precision search for PyTorch models: the Pareto front of quality against latency, size and energy.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

_SERVER = "Jobs on a server"
_LOCAL: dict[str, Callable[..., None]] = {
    "run": run_command,
    "front": front_command,
    "export": export_command,
    "measure": measure_command,
    "devices": devices_command,
    "formats": formats_command,
    "dashboard": dashboard_command,
    "doctor": doctor_command,
}
_REMOTE: dict[str, Callable[..., None]] = {
    "submit": submit_command,
    "jobs": jobs_command,
    "show": show_command,
    "logs": logs_command,
    "cancel": cancel_command,
    "pause": pause_command,
    "resume": resume_command,
    "retry": retry_command,
    "reproduce": reproduce_command,
    "serve": serve_command,
    "worker": worker_command,
    "sweep": sweep_command,
    "pin": pin_command,
}
for _name, _verb in _LOCAL.items():
    app.command(_name)(_verb)
for _name, _verb in _REMOTE.items():
    app.command(_name, rich_help_panel=_SERVER)(_verb)
app.add_typer(proxies_app, name="proxies")
app.add_typer(bench_app, name="bench")
app.add_typer(users_app, name="users", rich_help_panel=_SERVER)


def main() -> None:
    """Entry point of the ``bitfront`` command: errors are one line on standard error; 2 bad input, 1 failure."""
    import logging
    import warnings

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # parallelism is by processes
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except InvalidInput as cause:
        _fail(str(cause), 2)
    except BitfrontError as cause:
        _fail(str(cause), 1)
    except Exception as cause:
        if hasattr(cause, "format_message"):  # a usage error of the command line itself
            _fail(f"{cause.format_message()} See `bitfront --help`.", 2)
        if os.environ.get("BITFRONT_DEBUG"):
            raise
        where = traceback.extract_tb(cause.__traceback__)[-1]
        _fail(
            f"unexpected {type(cause).__name__} in {Path(where.filename).name}:{where.lineno}: {cause}; "
            "set BITFRONT_DEBUG=1 for the traceback and report it",
            1,
        )
    if code == 130:
        _fail("interrupted; run the same command to go on", 130)
    sys.exit(code or 0)


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"bitfront: {' '.join(message.split())}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
