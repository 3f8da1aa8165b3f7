"""What the OpenAPI document says of answers that are no successes."""

from __future__ import annotations

from typing import Any

from .views import ErrorView

_TOLD = {
    400: "the body is malformed",
    401: "no token, or one that is unknown or expired",
    403: "the role does not allow it, or it belongs to somebody else",
    404: "there is none",
    408: "the body came too slowly",
    409: "it does not fit the state that a thing is in",
    413: "the body is too long",
    422: "something in the request cannot be used",
    429: "too many requests; Retry-After says when to come back",
    500: "something went wrong; the server's log has it under the number of the incident",
    503: "the database cannot answer now",
}
_MESSAGES = {
    400: ("Malformed", "the body is not UTF-8 text (byte 7)"),
    401: ("Unauthorized", "unknown or expired token: ask an administrator for a new one"),
    403: ("Refused", "bob is a viewer; this needs a submitter"),
    404: ("NotFound", "no job '3f2a9c51d0e7'; `bitfront jobs` lists them"),
    408: ("TooSlow", "nothing of the body came for 30 s"),
    409: ("Conflict", "job 3f2a9c51d0e7 is succeeded: there is nothing to cancel"),
    413: ("TooLarge", "the body is longer than 1000000 bytes"),
    422: ("InvalidInput", "query.limit: Input should be less than or equal to 500"),
    429: ("TooManyRequests", "more than 600 requests a minute"),
    500: ("InternalError", "something went wrong here; the server's log has it as incident 9f3c2a7b10de"),
    503: ("DatabaseUnavailable", "the database cannot answer now; try again"),
}
Responses = dict[int | str, dict[str, Any]]


_ALWAYS = (401, 403, 408, 413, 422, 429, 500, 503)


def problems(*statuses: int) -> Responses:
    """Entries of ``responses`` for some statuses, each with an example."""
    return {status: {"model": ErrorView, **_entry(status)} for status in statuses}


def problems_of_stream(*statuses: int) -> Responses:
    """The same, and those that every route has, for a route whose successes are no JSON."""
    return {status: _entry(status) for status in sorted({*_ALWAYS, *statuses})}


def _entry(status: int) -> dict[str, Any]:
    kind, message = _MESSAGES[status]
    content = {
        "schema": {"$ref": "#/components/schemas/ErrorView"},
        "example": {"error": {"type": kind, "message": message}},
    }
    entry: dict[str, Any] = {"description": _TOLD[status], "content": {"application/json": content}}
    if status in (429, 503):
        entry["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
    return entry


#: What every route behind the gate may answer.
ALWAYS = problems(*_ALWAYS)
