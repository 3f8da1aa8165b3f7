"""The audit trail: a line for every request that changed something, and for every one that was refused."""

from __future__ import annotations

import logging

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors_of_database import told
from .notes import Notes, notes_in
from .state import State

_LOG = logging.getLogger("bitfront.api")
_REFUSED_READS = (401, 403, 408, 413, 429)  # what was only not found, or asked for wrongly, is no refusal
_SAFE = ("GET", "HEAD", "OPTIONS")
_LONGEST = 500


class Trail:
    """ASGI middleware: writes the line before the answer goes out, so that who has the answer finds the line.

    Args:
        app: what answers.
        state: of the server.
    """

    def __init__(self, app: ASGIApp, state: State) -> None:
        self.app, self.state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and write down what was answered."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        notes = notes_in(scope)

        async def written(message: Message) -> None:
            if message["type"] == "http.response.start" and _wanted(scope, message["status"], notes):
                await run_in_threadpool(self._write, scope, message["status"], notes)
            await send(message)

        await self.app(scope, receive, written)

    def _write(self, scope: Scope, status: int, notes: Notes) -> None:
        outcome = "allowed" if status < 400 else "refused" if status < 500 else "failed"
        detail = notes.detail if status < 400 else f"{status} {notes.detail}"
        parameters = scope.get("path_params", {})
        user = "" if notes.who is None else notes.who.name
        action = notes.action or getattr(scope.get("route"), "name", "") or scope["method"]
        target = notes.target or str(parameters.get("job_id", "")) or scope["path"]
        try:
            self.state.access.record(user, action, _plain(target), outcome, _plain(detail))
        except SQLAlchemyError as cause:  # the answer stands; the log has what the trail lacks
            self.state.metrics.lost_lines.inc()
            _LOG.error("audit line lost: %s %s %s %s: %s", user, action, target, outcome, told(cause))


def _wanted(scope: Scope, status: int, notes: Notes) -> bool:
    if status >= 400 and not notes.audited:
        return False
    return scope["method"] not in _SAFE or status in _REFUSED_READS or (status >= 400 and _strays(scope["path"]))


def _strays(path: str) -> bool:
    """Whether a path, decoded, tries to leave the folder that it names a file of."""
    return "//" in path or "\\" in path or "\0" in path or ".." in path.split("/")


def _plain(text: str) -> str:
    """Printable and not too long: PostgreSQL keeps no NUL, and a log line is a line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:_LONGEST]
