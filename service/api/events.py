"""What a job tells while it runs: as a stream of server-sent events, and as a log.

Each stored event goes out with its id, kind and content; a reader that comes back with ``Last-Event-ID`` gets what it
missed, and nothing twice. Between them come events without an id: ``job`` whenever the job's state or progress changed,
comments as signs of life, and ``end`` with the job when it has ended. A paused job's stream stays open.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from ...store import Event, Job
from .identity import Viewer
from .parameters import MOST_ID, JobId
from .plain import plain
from .responses import problems_of_stream
from .state import State, state_of
from .views import JobView

router = APIRouter(tags=["events"])
_ENDED = ("succeeded", "failed", "cancelled")
_EVERY = 0.5  # seconds between two looks at the database
_SLOWEST = 5.0  # while it does not answer
_ALIVE = 15.0  # seconds between comments that keep proxies from closing the connection
_RETRY = 2000  # milliseconds until a browser comes back
_PAGE = 200
_EXAMPLE = (
    'id: 17\nevent: stage\ndata: {"stage": "search", "state": "started", "total": 24, "at": 1795000000.0}\n\n'
    'event: end\ndata: {"id": "3f2a9c51d0e7", "state": "succeeded"}\n\n'
)
_EVENT = {
    "type": "object",
    "description": "one server-sent event",
    "required": ["data"],
    "properties": {
        "id": {"type": "string", "description": "of a stored event; give it back as Last-Event-ID"},
        "event": {
            "type": "string",
            "description": "log, stage, progress, evaluation, all with an id; job (its state or progress changed), end",
        },
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "integer"},
    },
}


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


@router.get(
    "/jobs/{job_id}/events",
    summary="Follow a job",
    response_class=EventStream,
    responses={
        200: {"content": {"text/event-stream": {"schema": _EVENT, "example": _EXAMPLE}}},
        **problems_of_stream(404),
    },
)
async def events(
    request: Request,
    who: Viewer,
    job_id: JobId,
    last: Annotated[int, Header(alias="Last-Event-ID", ge=0, le=MOST_ID)] = 0,
    after: Annotated[int, Query(ge=0, le=MOST_ID, description="as Last-Event-ID, where no header can be sent")] = 0,
) -> EventStream:
    """Server-sent events from the first one, or after `Last-Event-ID`, until the job has ended."""
    state = state_of(request)
    await _asked(state, state.queue.job, job_id)
    if state.open_streams >= state.settings.most_streams:
        raise HTTPException(
            429,
            f"{state.settings.most_streams} streams are open; read /jobs/{job_id} or come back",
            {"Retry-After": "10"},
        )
    return EventStream(_stream(state, job_id, max(last, after)), headers={"X-Accel-Buffering": "no"})


async def _stream(state: State, job_id: str, last: int) -> AsyncIterator[str]:
    state.open_streams += 1
    state.metrics.streams.inc()
    try:
        yield f"retry: {_RETRY}\n\n"
        told: dict[str, Any] | None = None
        said, pause = time.monotonic(), _EVERY
        while not state.stopping.is_set():
            try:
                job, found = await _asked(state, partial(_look, state, job_id, last))
            except SQLAlchemyError:  # the client waits with us; the other routes tell of it
                job, found, pause = None, [], min(2.0 * pause, _SLOWEST)
            else:
                pause = _EVERY
            for event in found:
                last = event.id
                yield _message(event.kind, {**event.content, "at": event.at}, event.id)
            if job is not None:
                view = JobView.of(job).model_dump()
                changing = {name: view[name] for name in ("state", "reason", "wish", "attempt", "progress")}
                if told != changing:
                    yield _message("job", view)
                    told = changing
                if job.state in _ENDED and len(found) < _PAGE:
                    yield _message("end", view)
                    return
                said = time.monotonic() if found else said
            if time.monotonic() - said > _ALIVE:
                yield ": alive\n\n"
                said = time.monotonic()
            if len(found) < _PAGE:
                await anyio.sleep(pause)
    finally:
        state.open_streams -= 1
        state.metrics.streams.dec()


def _look(state: State, job_id: str, last: int) -> tuple[Job, list[Event]]:
    """The job first: whatever an ended job told was there before it ended."""
    job = state.queue.job(job_id)
    return job, state.events.after(job_id, last, _PAGE)


async def _asked(state: State, question: Any, *arguments: Any) -> Any:
    return await run_sync(question, *arguments, limiter=state.stream_threads)


def _message(kind: str, content: dict[str, Any], number: int | None = None) -> str:
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {kind}\ndata: {json.dumps(plain(content), allow_nan=False)}\n\n"


@router.get(
    "/jobs/{job_id}/log",
    summary="The log of a job",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {
                "text/plain": {"schema": {"type": "string"}},
                "application/x-ndjson": {"schema": {"type": "string"}},
            }
        },
        **problems_of_stream(404),
    },
)
def log(
    request: Request,
    who: Viewer,
    job_id: JobId,
    after: Annotated[int, Query(ge=0, le=MOST_ID, description="id of the last event that is known")] = 0,
    structured: Annotated[bool, Query(description="one JSON object a line, with id, kind, time and content")] = False,
) -> StreamingResponse:
    """What it told so far, a line each: stages, notes, progress."""
    state = state_of(request)
    state.queue.job(job_id)
    kind = "application/x-ndjson" if structured else "text/plain"
    return StreamingResponse(_lines(state, job_id, after, structured), media_type=kind)


def _lines(state: State, job_id: str, last: int, structured: bool) -> Iterator[str]:
    """Read page by page, so that a long log needs little memory."""
    kinds = () if structured else ("stage", "log", "progress")
    while True:
        found = state.events.after(job_id, last, _PAGE, kinds)
        for event in found:
            last = event.id
            yield _structured(event) if structured else _line(event)
        if len(found) < _PAGE:
            return


def _structured(event: Event) -> str:
    content = {"id": event.id, "kind": event.kind, "at": event.at, "content": plain(event.content)}
    return json.dumps(content, allow_nan=False) + "\n"


def _line(event: Event) -> str:
    """As in ``run.log``."""
    found = event.content
    moment = datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds")
    if event.kind == "stage":
        steps = f"started ({found.get('total')} steps)"
        told = steps if found.get("state") == "started" else f"done in {found.get('seconds')} s"
        return f"{moment} {found.get('stage')}: {told}\n"
    return f"{moment} {found.get('line' if event.kind == 'log' else 'status', '')}\n"
