"""Errors as answers: the package's own with their line, all others with a number to look for in the log."""

from __future__ import annotations

import logging
import secrets

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from ...errors import BitfrontError, Conflict, InvalidInput, NotFound, Refused
from ..errors_of_database import told

_LOG = logging.getLogger("bitfront.api")
_STATUS: tuple[tuple[type[BitfrontError], int], ...] = (
    (NotFound, 404),
    (Conflict, 409),
    (Refused, 403),
    (InvalidInput, 422),
)


def answer(status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as JSON."""
    content = {"error": {"type": kind, "message": " ".join(message.split())}}
    return JSONResponse(content, status_code=status, headers=headers)


def install(app: FastAPI) -> None:
    """Let an app answer errors this way."""

    @app.exception_handler(BitfrontError)
    def own(request: Request, cause: BitfrontError) -> JSONResponse:
        for kind, status in _STATUS:
            if isinstance(cause, kind):
                return answer(status, type(cause).__name__, str(cause))
        return _unexpected(request, cause)

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, cause: RequestValidationError) -> JSONResponse:
        first = cause.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return answer(422, "InvalidInput", f"{where}: {first['msg']}")

    @app.exception_handler(HTTPException)
    def plain(request: Request, cause: HTTPException) -> JSONResponse:
        headers = dict(cause.headers) if cause.headers else None
        return answer(cause.status_code, _NAMES.get(cause.status_code, "Error"), str(cause.detail), headers)

    @app.exception_handler(SQLAlchemyError)
    def database(request: Request, cause: SQLAlchemyError) -> JSONResponse:
        _LOG.error("database: %s", told(cause))
        return answer(503, "DatabaseUnavailable", "the database does not answer; try again", {"Retry-After": "5"})

    app.add_exception_handler(Exception, _unexpected)


_NAMES = {
    400: "Malformed",
    401: "Unauthorized",
    403: "Refused",
    404: "NotFound",
    405: "MethodNotAllowed",
    413: "TooLarge",
    415: "UnsupportedMediaType",
    429: "TooManyRequests",
}


def _unexpected(request: Request, cause: Exception) -> JSONResponse:
    incident = secrets.token_hex(6)
    _LOG.error("incident %s: %s %s", incident, request.method, request.url.path, exc_info=cause)
    return answer(500, "InternalError", f"something went wrong here; its log has it as incident {incident}")
