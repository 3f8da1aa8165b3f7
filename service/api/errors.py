"""Errors as answers: the package's own with their line, all others with a number to look for in the log."""

from __future__ import annotations

import logging
import secrets

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnection
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...errors import BitfrontError, Conflict, InvalidInput, NotFound, Refused
from ..errors_of_database import told
from ..worker.redaction import redacted
from .notes import notes_in

_LOG = logging.getLogger("bitfront.api")
_STATUS: tuple[tuple[type[BitfrontError], int], ...] = (
    (NotFound, 404),
    (Conflict, 409),
    (Refused, 403),
    (InvalidInput, 422),
)
NAMES = {
    400: "Malformed",
    401: "Unauthorized",
    403: "Refused",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "TooSlow",
    409: "Conflict",
    413: "TooLarge",
    415: "UnsupportedMediaType",
    422: "InvalidInput",
    429: "TooManyRequests",
    500: "InternalError",
    503: "DatabaseUnavailable",
}

_PLAINER = {
    (404, "Not Found"): "there is nothing at this address; /openapi.json lists what there is",
    (405, "Method Not Allowed"): "this address takes other methods; /openapi.json lists them",
}


class Errors:
    """ASGI middleware: whatever a layer inside raises becomes an answer, if none has begun.

    Args:
        app: what answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer in any case."""
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as cause:
            if scope["type"] != "http" or begun:
                raise
            if not isinstance(cause, ClientDisconnect):  # then nobody waits for an answer
                await _answered(Request(scope), cause)(scope, receive, send)


def install(app: FastAPI) -> None:
    """Let the routes of an app answer errors this way."""
    for kind in (BitfrontError, RequestValidationError, HTTPException, SQLAlchemyError):
        app.add_exception_handler(kind, _answered)


def _answered(request: Request, cause: Exception) -> JSONResponse:
    """The answer to any error."""
    headers: dict[str, str] = {}
    if isinstance(cause, HTTPException):
        status, message, headers = cause.status_code, str(cause.detail), dict(cause.headers or {})
        message = _PLAINER.get((status, message), message)
    elif isinstance(cause, RequestValidationError):
        status, message = _invalid(cause)
    elif isinstance(cause, InvalidInput):
        status, message = next(status for kind, status in _STATUS if isinstance(cause, kind)), str(cause)
    elif isinstance(cause, OperationalError | InterfaceError | NoConnection):
        _LOG.error("database: %s", told(cause))
        status, message, headers = 503, "the database cannot answer now; try again", {"Retry-After": "5"}
    else:
        incident = secrets.token_hex(6)
        _LOG.error("incident %s: %s %s", incident, request.method, request.url.path, exc_info=cause)
        status, message = 500, f"something went wrong here; the server's log has it as incident {incident}"
    kind = type(cause).__name__ if isinstance(cause, InvalidInput) else NAMES.get(status, "Error")
    line = redacted(" ".join(message.split()))
    notes_in(request.scope).detail = line
    return JSONResponse({"error": {"type": kind, "message": line}}, status_code=status, headers=headers)


def _invalid(cause: RequestValidationError) -> tuple[int, str]:
    """400 for what is no JSON at all, 422 for the rest; never the value itself, which may be a secret."""
    first = cause.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "json_invalid":
        return 400, f"the body is not JSON: {first.get('ctx', {}).get('error', '')} at character {first['loc'][-1]}"
    return 422, f"{where}: {first['msg']}"
