"""The Streamlit app: jobs of a server and runs in folders; their fronts, points, trust, comparison; devices.

>>> from bitfront.dashboard import server_arguments
>>> server_arguments("127.0.0.1", 8501)[:3]
['--server.address=127.0.0.1', '--server.port=8501', '--server.headless=true']
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

from ..errors import InvalidInput
from ..service.token_file import server_of

__all__ = ["PATHS_VARIABLE", "SERVER_VARIABLE", "launch", "server_arguments"]

PATHS_VARIABLE = "BITFRONT_DASHBOARD_PATHS"
"""Environment variable with the folders that the app may read, joined by ``os.pathsep``; by default ``out``."""
SERVER_VARIABLE = "BITFRONT_DASHBOARD_SERVER"
"""Environment variable with the URL of the server whose jobs are shown; none: only run folders."""


def server_arguments(host: str, port: int) -> list[str]:
    """Streamlit's options: no browser, no telemetry, no error details in the page."""
    return [
        f"--server.address={host}",
        f"--server.port={port}",
        "--server.headless=true",
        "--server.fileWatcherType=none",
        "--browser.gatherUsageStats=false",
        "--client.showErrorDetails=none",
        "--client.toolbarMode=minimal",
    ]


def launch(
    paths: Sequence[str | Path] = ("out",), host: str = "127.0.0.1", port: int = 8501, server: str | None = None
) -> None:
    """Serve the dashboard until interrupted.

    Args:
        paths: folders whose runs are shown; nothing outside them is read.
        host: address to listen on. Run folders need no login: another address than loopback shows them to everyone
            who can reach it. Jobs of a server need the token of one of its users.
        port: TCP port.
        server: URL of a bitfront server whose jobs are shown too.

    Raises:
        InvalidInput: a path is no folder, or the port is taken.
    """
    folders = [Path(path).resolve() for path in paths]
    for folder in folders:
        if not folder.is_dir():
            raise InvalidInput(f"no folder {folder}; give folders that hold runs")
    _require_free(host, port)
    from streamlit.web import cli

    os.environ[PATHS_VARIABLE] = os.pathsep.join(str(folder) for folder in folders)
    if server is not None:
        server_of(server)
        os.environ[SERVER_VARIABLE] = server
    app = Path(__file__).with_name("app.py")
    cli.main(["run", str(app), *server_arguments(host, port)], standalone_mode=False)


def _require_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as cause:
            raise InvalidInput(f"cannot listen on {host}:{port} ({cause}); give another host or port") from None
