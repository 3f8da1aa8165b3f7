"""The verb ``show``: one job of a server in full."""

from __future__ import annotations

from ..options import JobId, Json, ServerUrl


def show_command(job_id: JobId, server: ServerUrl = None, as_json: Json = False) -> None:
    """Show a job: its state, how far it has come, all that became true of it, and its files.

    bitfront show 3f2a9c51d0e7
    """
    from ..client import Client
    from ..terminal import show
    from .job_printing import condition_lines, job_lines, plain
    from .printing import print_json

    with Client(server) as client:
        found, files = client.show(job_id), client.artifacts(job_id)
    if as_json:
        artifacts = [{"name": each.name, "bytes": each.bytes, "sha256": each.sha256} for each in files]
        print_json({**plain(found), "artifacts": artifacts})
        return
    written = [f"file      {each.name} ({each.bytes:,} bytes, SHA-256 {each.sha256[:12]}…)" for each in files]
    show(*job_lines(found), *written, "", *condition_lines(found))
