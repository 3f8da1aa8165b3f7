"""Whether the server lives, and whether it can serve."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel
from sqlalchemy import text

from .state import state_of
from .views import ErrorView

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """A sign of life."""

    status: str = "ok"


@router.get("/healthz", summary="The process lives")
def alive() -> Health:
    """Answers without asking the database."""
    return Health()


@router.get("/readyz", summary="The database answers", responses={503: {"model": ErrorView}})
def ready(request: Request) -> Health:
    """Answers 503 while the database does not."""
    with state_of(request).store.session() as session:
        session.execute(text("SELECT 1"))
    return Health()
