"""Routes of jobs: submit, list, show, and what may be asked of one."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from .bodies import read_text
from .identity import Submitter, Viewer, own
from .notes import notes_of
from .parameters import Cursor, JobId, Key, OwnerName, PartOfName
from .responses import ALWAYS, problems
from .state import state_of
from .views import ConditionView, JobInFull, JobPage, JobView, State

router = APIRouter(tags=["jobs"], responses=ALWAYS)
Verb = Literal["cancel", "pause", "resume", "retry"]
_EXAMPLE = {
    "name": "digits",
    "model": {"zoo": "digits_resnet20"},
    "objectives": ["quality", "size_mb"],
    "search": {"evaluations": 24, "seed": 0},
}
_YAML = (
    "name: digits\nmodel: {zoo: digits_resnet20}\nobjectives: [quality, size_mb]\nsearch: {evaluations: 24, seed: 0}\n"
)
_BODY = {
    "requestBody": {
        "required": True,
        "description": "the job; docs/job.md has every key",
        "content": {
            "application/yaml": {"schema": {"type": "string"}, "example": _YAML},
            "application/json": {"schema": {"type": "object"}, "example": _EXAMPLE},
        },
    }
}


@router.post(
    "/jobs",
    status_code=201,
    summary="Submit a job",
    responses={200: {"model": JobView, "description": "known by its key"}, **problems(400, 404, 409)},
    openapi_extra=_BODY,
)
async def submit(
    request: Request,
    response: Response,
    who: Submitter,
    key: Key = None,
    priority: Annotated[int, Query(ge=-100, le=100, description="higher ones first")] = 0,
    attempts: Annotated[int, Query(ge=1, le=100, description="claims before it counts as failed")] = 3,
    seconds: Annotated[
        float | None, Query(gt=0, le=1e9, description="of workers' time, over all attempts; none: no limit")
    ] = None,
) -> JobView:
    """The body is the job, as YAML or JSON. The same Idempotency-Key gives the same job, with status 200."""
    content = await read_text(request)

    def act() -> JobView:
        from ..admission import admit
        from ..uploads import measured_devices

        state = state_of(request)
        asked = admit(
            content,
            who,
            state.settings,
            state.store,
            key=key,
            priority=priority,
            most_attempts=attempts,
            most_seconds=seconds,
        )
        job, new = state.queue.submit(asked)
        if job.waiting:  # what it waits for may have come since it was admitted
            state.queue.measured(measured_devices(state.store))
            job = state.queue.job(job.id)
        notes_of(request).target, notes_of(request).detail = job.id, job.name
        response.status_code = 201 if new else 200
        return JobView.of(job)

    return await run_in_threadpool(act)


class ProblemView(BaseModel):
    """Something that keeps a job from being queued."""

    message: str
    line: int | None = Field(None, description="from 1")
    column: int | None = Field(None, description="from 1")


class EstimateView(BaseModel):
    """How long a job will work, from finished ones of the same model, data and device."""

    seconds: float | None = Field(None, description="null: there is none to go by")
    low: float | None = None
    high: float | None = None
    jobs: int = 0


class CheckedView(BaseModel):
    """A job that was looked at and not queued."""

    problems: list[ProblemView] = Field(description="empty: it would be queued")
    name: str
    waits_for: list[str] = Field(description="devices without measured tables that it would wait for")
    estimate: EstimateView


@router.post("/jobs/check", summary="Look at a job without submitting it", openapi_extra=_BODY, name="check_job")
async def checked(request: Request, who: Submitter) -> CheckedView:
    """What is wrong with it and on which line, and how long it would work."""
    content = await read_text(request)

    def act() -> CheckedView:
        from ..job_check import check

        state = state_of(request)
        return CheckedView.model_validate(asdict(check(content, who, state.settings, state.store)))

    return await run_in_threadpool(act)


@router.get("/jobs", summary="List jobs, the newest first", name="list_jobs")
def listed(
    request: Request,
    who: Viewer,
    state: Annotated[list[State] | None, Query(description="only these states; repeatable")] = None,
    owner: OwnerName = None,
    name: PartOfName = "",
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> JobPage:
    """A page of jobs; ``cursor`` of one page gives the next."""
    queue = state_of(request).queue
    before = _position(cursor)
    found = queue.list(states=state or (), owner=owner, name=name, before=before, count=limit + 1)
    page = found[:limit]
    after = f"{page[-1].queued_at or 0.0!r}_{page[-1].id}" if len(found) > limit else None
    return JobPage(jobs=[JobView.of(job) for job in page], cursor=after, counts=queue.counts())


def _position(cursor: str | None) -> tuple[float, str] | None:
    if cursor is None:
        return None
    written, _, job_id = cursor.partition("_")
    try:
        moment = float(written)
    except ValueError:
        moment = math.nan
    if not math.isfinite(moment) or not job_id:
        raise HTTPException(422, f"query.cursor: {cursor!r} did not come from this list")
    return moment, job_id


@router.get("/jobs/{job_id}", summary="Show a job", responses=problems(404), name="show_job")
def shown(request: Request, who: Viewer, job_id: JobId) -> JobInFull:
    """With its specification, its record and its conditions."""
    queue = state_of(request).queue
    return JobInFull.made(queue.job(job_id), queue.conditions(job_id))


@router.get("/jobs/{job_id}/conditions", summary="What became true of a job", responses=problems(404))
def conditions(request: Request, who: Viewer, job_id: JobId) -> list[ConditionView]:
    """In order."""
    queue = state_of(request).queue
    queue.job(job_id)
    return [ConditionView.of(each) for each in queue.conditions(job_id)]


def _change(request: Request, who: Submitter, job_id: JobId, verb: Verb) -> JobView:
    queue = state_of(request).queue
    own(who, queue.job(job_id), verb)
    return JobView.of(getattr(queue, verb)(job_id, who.name))


_FOLLOWS = "Of a running job `wish` tells what its worker was asked; it follows within a heartbeat."


@router.post("/jobs/{job_id}/cancel", summary="End a job", description=_FOLLOWS, responses=problems(404, 409))
def cancel(request: Request, who: Submitter, job_id: JobId) -> JobView:
    """What was measured is kept."""
    return _change(request, who, job_id, "cancel")


@router.post(
    "/jobs/{job_id}/pause",
    summary="Stop a job so that it can go on",
    description=_FOLLOWS,
    responses=problems(404, 409),
)
def pause(request: Request, who: Submitter, job_id: JobId) -> JobView:
    """It ends what is being measured."""
    return _change(request, who, job_id, "pause")


@router.post("/jobs/{job_id}/resume", summary="Queue a paused job again", responses=problems(404, 409))
def resume(request: Request, who: Submitter, job_id: JobId) -> JobView:
    """What was measured is not measured again."""
    return _change(request, who, job_id, "resume")


@router.post("/jobs/{job_id}/retry", summary="Queue a failed or cancelled job again", responses=problems(404, 409))
def retry(request: Request, who: Submitter, job_id: JobId) -> JobView:
    """With all its attempts; what was measured is not measured again."""
    return _change(request, who, job_id, "retry")
