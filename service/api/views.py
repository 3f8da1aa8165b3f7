"""What the API answers with about jobs, as models that OpenAPI describes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...store import JOB_STATES, Condition, Job, StoredFile
from ..export_order import KEY as EXPORT_OF
from .plain import plain

State = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
assert set(JOB_STATES) == set(State.__args__)  # type: ignore[attr-defined]


class ErrorBody(BaseModel):
    """What went wrong."""

    type: str = Field(description="kind of error, such as NotFound", examples=["NotFound"])
    message: str = Field(
        description="one line: what was given, what was expected, what to do", examples=["no job 'ab'"]
    )


class ErrorView(BaseModel):
    """Every answer that is not a success."""

    error: ErrorBody


class ConditionView(BaseModel):
    """Something that became true of a job."""

    type: str = Field(examples=["Running"])
    reason: str = Field(examples=["Claimed"])
    message: str = Field(examples=["attempt 1 of 3 by host-1a2b3c4d"])
    attempt: int
    at: float = Field(description="seconds since 1970, by the database's clock")

    @staticmethod
    def of(found: Condition) -> ConditionView:
        """From the store."""
        return ConditionView(
            type=found.type, reason=found.reason, message=found.message, attempt=found.attempt, at=found.at
        )


class ProgressView(BaseModel):
    """How far a job has come; empty before it began."""

    model_config = ConfigDict(extra="allow")

    stage: str | None = Field(None, examples=["search"])
    done: float | None = Field(None, description="steps of the stage")
    total: float | None = Field(None, description="steps of the stage")
    eta_seconds: float | None = Field(None, description="until the end of the stage")
    evaluated: int | None = Field(None, description="configurations that were measured")
    evaluations: int | None = Field(None, description="that the job asks for")
    status: str | None = None


class JobView(BaseModel):
    """A job and how it stands."""

    id: str = Field(examples=["3f2a9c51d0e7"])
    name: str = Field(examples=["digits"])
    kind: Literal["search", "export"] = Field(description="a search has a front, an export one artifact")
    state: State
    reason: str = Field(description="the newest condition's message")
    owner: str = Field(examples=["ann"])
    priority: int = Field(description="higher ones first")
    attempt: int = Field(description="how often a worker took it")
    most_attempts: int
    wish: str = Field(description="what its worker was asked to do and has not done yet: pause, cancel or nothing")
    waiting: bool = Field(description="whether measurements are missing that it needs")
    created_at: float | None = Field(description="when it was queued, seconds since 1970")
    started_at: float | None
    finished_at: float | None
    seconds_used: float = Field(description="of workers' time, over all attempts")
    most_seconds: float | None
    progress: ProgressView

    @staticmethod
    def of(found: Job) -> JobView:
        """From the store."""
        return JobView.model_validate(_fields(found))


class JobInFull(JobView):
    """A job with what was asked, how to run it again, and all that became true of it."""

    specification: dict[str, Any]
    record: dict[str, Any]
    conditions: list[ConditionView]

    @staticmethod
    def made(found: Job, conditions: list[Condition]) -> JobInFull:
        """From the store."""
        return JobInFull.model_validate(
            {
                **_fields(found),
                "specification": plain(found.specification),
                "record": plain(found.record),
                "conditions": [ConditionView.of(each) for each in conditions],
            }
        )


class JobPage(BaseModel):
    """Some jobs, the newest first."""

    jobs: list[JobView]
    cursor: str | None = Field(description="give it back to read on; null at the end")
    counts: dict[str, int] = Field(description="jobs by state, of all owners", examples=[{"running": 2, "queued": 7}])


class ArtifactView(BaseModel):
    """A file that a job wrote."""

    name: str = Field(examples=["export/p05.onnx"])
    bytes: int
    sha256: str

    @staticmethod
    def of(found: StoredFile) -> ArtifactView:
        """From the store."""
        return ArtifactView(name=found.name, bytes=found.bytes, sha256=found.sha256)


def _fields(found: Job) -> dict[str, Any]:
    names = ("id", "name", "state", "reason", "owner", "priority", "attempt", "most_attempts", "wish", "waiting")
    more = ("started_at", "finished_at", "seconds_used", "most_seconds")
    fields = {name: getattr(found, name) for name in (*names, *more)}
    created = found.queued_at if found.queued_at is not None else found.created_at.timestamp()
    kind = "export" if EXPORT_OF in found.specification else "search"
    return {**fields, "kind": kind, "created_at": created, "progress": plain(found.progress or {})}
