"""The route of exports: an export loads a model, so it is a job of its own that a worker runs."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from .identity import Submitter
from .notes import notes_of
from .parameters import JobId, Key
from .responses import ALWAYS, problems
from .state import state_of
from .views import JobView

router = APIRouter(tags=["results"], responses=ALWAYS)


class ExportAsked(BaseModel):
    """What to export."""

    model_config = ConfigDict(extra="forbid")

    point: str = Field(
        "best",
        min_length=1,
        max_length=80,
        pattern="^[A-Za-z0-9_-]+$",
        description="id of a point of the front, digest of a measured configuration, or best",
        examples=["best"],
    )
    target: str = Field("onnx", min_length=1, max_length=40, pattern="^[A-Za-z0-9_.-]+$", examples=["onnx"])


@router.post(
    "/jobs/{job_id}/export",
    status_code=202,
    summary="Export a point for a runtime",
    responses={200: {"model": JobView, "description": "asked for before"}, **problems(400, 404, 409)},
)
def export(
    request: Request, response: Response, who: Submitter, job_id: JobId, body: ExportAsked, key: Key = None
) -> JobView:
    """The answer is the job that exports: when it has succeeded, the artifact is one of its files.

    The same configuration and target give the same job again, also without a key.
    """
    from ..export_order import submission

    state = state_of(request)
    asked = submission(state.store, state.queue.job(job_id), body.point, body.target, owner=who.name, key=key)
    made, new = state.queue.submit(asked)
    notes_of(request).target, notes_of(request).detail = made.id, f"{body.point} of {job_id} to {body.target}"
    response.status_code = 202 if new else 200
    return JobView.of(made)
