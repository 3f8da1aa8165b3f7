"""Routes of jobs: submit, list, show, and what may be asked of one."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.exceptions import HTTPException

from ...store import JOB_STATES
from .bodies import read_body
from .identity import Submitter, Viewer, own
from .state import state_of
from .views import ArtifactView, ConditionView, ErrorView, JobInFull, JobPage, JobView

_COMMON: dict[int | str, dict[str, type]] = {401: {"model": ErrorView}, 403: {"model": ErrorView}}
_NOT_FOUND: dict[int | str, dict[str, type]] = {**_COMMON, 404: {"model": ErrorView}}
router = APIRouter(tags=["jobs"], responses={**_COMMON, 422: {"model": ErrorView}, 503: {"model": ErrorView}})
Verb = Literal["cancel", "pause", "resume", "retry"]
State = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
assert set(JOB_STATES) == set(State.__args__)  # type: ignore[attr-defined]


@router.post(
    "/jobs",
    status_code=201,
    summary="Submit a job",
    responses={200: {"model": JobView}, 409: {"model": ErrorView}, 413: {"model": ErrorView}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/yaml": {"schema": {"type": "string"}},
                "application/json": {"schema": {"type": "object"}},
            },
        }
    },
)
async def submit(
    request: Request,
    response: Response,
    who: Submitter,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
    priority: Annotated[int, Query(ge=-100, le=100)] = 0,
) -> JobView:
    """The body is the job, as YAML or JSON. The same Idempotency-Key gives the same job, with status 200."""
    from starlette.concurrency import run_in_threadpool

    from ..admission import admit

    state = state_of(request)
    content = await read_body(request, state.settings.most_body_bytes)

    def act() -> JobView:
        asked = admit(content, who, state.settings, state.store, key=idempotency_key, priority=priority)
        job, new = state.queue.submit(asked)
        state.access.record(who.name, "submit", job.id, "allowed", job.name)
        if not new:
            response.status_code = 200
        return JobView.of(job)

    return await run_in_threadpool(act)


@router.get("/jobs", summary="List jobs, the newest first")
def listed(
    request: Request,
    who: Viewer,
    state: Annotated[list[State] | None, Query(description="only these states; repeatable")] = None,
    owner: Annotated[str | None, Query(max_length=80)] = None,
    name: Annotated[str, Query(max_length=200, description="part of the name")] = "",
    cursor: Annotated[str | None, Query(max_length=80)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> JobPage:
    """A page of jobs; ``cursor`` of one page gives the next."""
    queue = state_of(request).queue
    before = _position(cursor)
    found = queue.list(states=state or (), owner=owner, name=name, before=before, count=limit)
    last = found[-1] if len(found) == limit else None
    after = None if last is None else f"{last.queued_at or 0.0!r}_{last.id}"
    return JobPage(jobs=[JobView.of(job) for job in found], cursor=after, counts=queue.counts())


def _position(cursor: str | None) -> tuple[float, str] | None:
    if cursor is None:
        return None
    moment, _, job_id = cursor.partition("_")
    try:
        return float(moment), job_id
    except ValueError:
        raise HTTPException(422, f"cursor {cursor!r} did not come from this list") from None


@router.get("/jobs/{job_id}", summary="Show a job", responses=_NOT_FOUND)
def shown(request: Request, who: Viewer, job_id: str) -> JobInFull:
    """With its specification, its record and its conditions."""
    queue = state_of(request).queue
    return JobInFull.made(queue.job(job_id), queue.conditions(job_id))


@router.get("/jobs/{job_id}/conditions", summary="What became true of a job", responses=_NOT_FOUND)
def conditions(request: Request, who: Viewer, job_id: str) -> list[ConditionView]:
    """In order."""
    queue = state_of(request).queue
    queue.job(job_id)
    return [ConditionView.of(each) for each in queue.conditions(job_id)]


@router.post(
    "/jobs/{job_id}/{verb}",
    summary="Cancel, pause, resume or retry a job",
    responses={**_NOT_FOUND, 409: {"model": ErrorView}},
)
def change(
    request: Request, who: Submitter, job_id: str, verb: Literal["cancel", "pause", "resume", "retry"]
) -> JobView:
    """Of a running job ``wish`` tells what its worker was asked; it follows within a heartbeat."""
    state = state_of(request)
    own(state, who, state.queue.job(job_id), verb)
    job = getattr(state.queue, verb)(job_id, who.name)
    state.access.record(who.name, verb, job_id, "allowed")
    return JobView.of(job)


@router.get("/jobs/{job_id}/artifacts", summary="The files that a job wrote", responses=_NOT_FOUND)
def artifacts(request: Request, who: Viewer, job_id: str) -> list[ArtifactView]:
    """By name."""
    state = state_of(request)
    state.queue.job(job_id)
    return [ArtifactView(name=each.name, bytes=each.bytes, sha256=each.sha256) for each in state.artifacts.of(job_id)]
