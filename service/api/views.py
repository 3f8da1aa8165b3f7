"""What the API answers with, as models that OpenAPI describes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from ...store import Condition, Job


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


class JobView(BaseModel):
    """A job and how it stands."""

    id: str = Field(examples=["3f2a9c51d0e7"])
    name: str
    state: str = Field(description="queued, running, paused, succeeded, failed or cancelled", examples=["running"])
    reason: str = Field(description="the newest condition's message")
    owner: str
    priority: int
    attempt: int
    most_attempts: int
    wish: str = Field(description="what its worker was asked to do and has not done yet: pause, cancel or nothing")
    waiting: bool = Field(description="whether measurements are missing that it needs")
    created_at: float | None = Field(description="when it was queued, seconds since 1970")
    started_at: float | None
    finished_at: float | None
    seconds_used: float = Field(description="of workers' time, over all attempts")
    most_seconds: float | None
    progress: dict[str, Any] = Field(description="stage, done, total, eta_seconds, status")

    @staticmethod
    def of(found: Job) -> JobView:
        """From the store."""
        return JobView(**_fields(found))


class JobInFull(JobView):
    """A job with what was asked, how to run it again, and all that became true of it."""

    specification: dict[str, Any]
    record: dict[str, Any]
    conditions: list[ConditionView]

    @staticmethod
    def made(found: Job, conditions: list[Condition]) -> JobInFull:
        """From the store."""
        return JobInFull(
            **_fields(found),
            specification=found.specification,
            record=found.record,
            conditions=[ConditionView.of(each) for each in conditions],
        )


class JobPage(BaseModel):
    """Some jobs, the newest first."""

    jobs: list[JobView]
    cursor: str | None = Field(description="give it back to read on; null at the end")
    counts: dict[str, int] = Field(description="jobs by state, of all owners")


class ArtifactView(BaseModel):
    """A file that a job wrote."""

    name: str = Field(examples=["export/p05.onnx"])
    bytes: int
    sha256: str


def _fields(found: Job) -> dict[str, Any]:
    names = ("id", "name", "state", "reason", "owner", "priority", "attempt", "most_attempts", "wish", "waiting")
    more = ("started_at", "finished_at", "seconds_used", "most_seconds", "progress")
    fields = {name: getattr(found, name) for name in (*names, *more)}
    return {**fields, "created_at": found.queued_at if found.queued_at is not None else found.created_at.timestamp()}
