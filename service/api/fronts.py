"""Routes of results: the front of a job while it runs and after, its candidates, and the answer to a new budget.

All three are answered from the store, without the model and its data.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ...errors import Conflict
from .identity import Viewer
from .parameters import Cursor, JobId
from .plain import plain
from .responses import ALWAYS, problems
from .state import state_of

router = APIRouter(tags=["results"], responses=ALWAYS)


class QualityView(BaseModel):
    """A measured quality; lower is better."""

    value: float | None
    low: float | None = Field(description="of the 95 % interval")
    high: float | None = Field(description="of the 95 % interval")
    seconds: float | None
    samples: int | None


class MeasuredView(BaseModel):
    """What was measured of a configuration."""

    validation: QualityView | None = None
    holdout: QualityView | None = Field(None, description="of data that the search does not see")


class PriceView(BaseModel):
    """A price with its interval."""

    model_config = ConfigDict(extra="allow")

    value: float | None
    source: str = Field("", description="exact, measured, predicted, …", examples=["exact"])


class PointView(BaseModel):
    """A measured configuration on the front, or a uniform one."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(description="uniform-FORMAT, or the digest of the configuration", examples=["uniform-w4"])
    digest: str
    config: dict[str, str] = Field(description="format of each site", examples=[{"conv1": "w8", "fc": "w4"}])
    origin: str = Field(description="who proposed it")
    baseline: str | None = Field(description="format of a uniform configuration")
    pareto: bool
    feasible: bool = Field(description="whether it meets the job's constraints")
    measured: MeasuredView
    prices: dict[str, PriceView]


class FrontView(BaseModel):
    """What a job has measured so far, and which of it is on the Pareto front."""

    model_config = ConfigDict(extra="allow")

    job: str
    state: str
    kind: Literal["joint"] | None = Field(
        None, description="joint: every point has an `architecture` of its own, and `networks` on request"
    )
    metric: str | None = Field(description="of the quality; null before anything is known", examples=["kl"])
    objectives: list[str]
    constraints: dict[str, float]
    proposed: int
    measured: int
    points: list[PointView]


class CandidateView(BaseModel):
    """A configuration that a job proposed."""

    configuration: str = Field(description="digest")
    config: dict[str, str]
    architecture: dict[str, Any] | None = Field(
        None, description="value of each dimension; only of a job that searches architectures"
    )
    origin: str
    predicted: float | None
    state: Literal["proposed", "measured", "failed"]
    failure: str | None = Field(description="why it could not be measured")
    measured: MeasuredView
    prices: dict[str, float | None]


class CandidatePage(BaseModel):
    """Some candidates of a job."""

    candidates: list[CandidateView]
    cursor: str | None = Field(description="give it back to read on; null at the end")


class IntervalColumns(BaseModel):
    """One list a column, null where not known."""

    value: list[float | None]
    low: list[float | None] = Field(description="of the 95 % interval")
    high: list[float | None] = Field(description="of the 95 % interval")


class ColumnsView(BaseModel):
    """Everything that a job measured; lists of equal length, one entry a candidate."""

    model_config = ConfigDict(extra="allow")

    job: str
    state: str
    metric: str
    objectives: list[str]
    constraints: dict[str, float]
    proposed: int
    measured: int
    failed: int
    space: dict[str, Any] = Field(description="sites, formats, ties")
    sensitivities: dict[str, list[list[float | None]]] = Field(description="proxy: [sites, formats]")
    price_tables: dict[str, dict[str, Any]] = Field(description="metric: values [sites, formats], base, source")
    ids: list[str] = Field(description="uniform-FORMAT, or the digest of the configuration")
    choices: list[str] = Field(description="one of 0-9a-zA-Z a site: the index of its format")
    pareto: list[bool]
    feasible: list[bool]
    quality: dict[str, IntervalColumns] = Field(description="by split")
    prices: dict[str, IntervalColumns] = Field(description="by metric")


class Budgets(BaseModel):
    """A question to a job: which configuration for these budgets?"""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"budgets": {"size_mb": 0.2}}]})

    budgets: dict[Annotated[str, Field(min_length=1, max_length=80)], Annotated[float, Field(allow_inf_nan=False)]] = (
        Field(
            max_length=20,
            description="price: largest value; they replace the job's constraints on the same prices",
            examples=[{"size_mb": 0.2}],
        )
    )


class SolutionView(BaseModel):
    """The best measured configuration within the budgets, and the exact optimum of the additive model."""

    model_config = ConfigDict(extra="allow")

    budgets: dict[str, float] = Field(description="those asked for and the constraints of the job")
    best: dict[str, Any] | None = Field(description="the best that was measured; null: nothing measured meets them")
    resolved: dict[str, Any] = Field(
        description="the exact optimum of the additive model; `is_measured` says whether its quality is a prediction"
    )


@router.get("/jobs/{job_id}/front", summary="The Pareto front of a job", responses=problems(404, 409))
def front(
    request: Request,
    who: Viewer,
    job_id: JobId,
    networks: Annotated[
        bool, Query(description="of a job that searches architectures: the layers of each point's network too")
    ] = False,
) -> FrontView:
    """At any moment: of what has been measured so far."""
    from ..job_front import front_of

    state = state_of(request)
    return FrontView.model_validate(plain(front_of(state.store, state.queue.job(job_id), networks)))


@router.get(
    "/jobs/{job_id}/columns",
    summary="All that a job measured, as columns",
    response_class=Response,
    responses={200: {"model": ColumnsView}, **problems(404, 409)},
)
def columns(
    request: Request,
    who: Viewer,
    job_id: JobId,
    rows: Annotated[int | None, Query(ge=1, le=1_000_000, description="at most; by default all")] = None,
) -> Response:
    """For plots: sites, scores and prices of every (site, format), and the measured candidates, one list a column.

    A job that searches architectures has none (422): its front has the points with their networks.
    """
    from ..job_columns import columns_of

    state = state_of(request)
    job = state.queue.job(job_id)
    found = columns_of(state.store, job, rows)
    if found is None:
        raise Conflict(f"job {job.id} is {job.state} and has neither prices nor scores yet; ask again once it runs")
    return Response(json.dumps(found, allow_nan=False, separators=(",", ":")), media_type="application/json")


@router.get("/jobs/{job_id}/candidates", summary="The candidates of a job", responses=problems(404))
def candidates(
    request: Request,
    who: Viewer,
    job_id: JobId,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> CandidatePage:
    """In the order in which they were proposed, measured or not."""
    from ..job_front import candidates_page

    state = state_of(request)
    rows, following = candidates_page(state.store, state.queue.job(job_id), cursor, limit)
    return CandidatePage(candidates=[CandidateView.model_validate(plain(row)) for row in rows], cursor=following)


@router.post("/jobs/{job_id}/solve", summary="The answer to a new budget", responses=problems(400, 404, 409))
def solve(request: Request, who: Viewer, job_id: JobId, body: Budgets) -> SolutionView:
    """From what was measured and scored; nothing is run, so a viewer may ask."""
    from ..job_front import solve as solved

    state = state_of(request)
    return SolutionView.model_validate(plain(solved(state.store, state.queue.job(job_id), body.budgets)))
