"""Whether the server lives, and whether it can serve."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from sqlalchemy import text
from starlette.exceptions import HTTPException

from ... import store
from .responses import problems
from .state import state_of

router = APIRouter(tags=["health"], responses=problems(403, 408, 413, 429, 500))


class Health(BaseModel):
    """A sign of life."""

    status: str = Field("ok", examples=["ok"])


@router.get("/healthz", summary="The process lives", name="healthz")
def alive() -> Health:
    """Answers without asking the database."""
    return Health(status="ok")


@router.get(
    "/readyz", summary="The database answers and has the schema of this version", responses=problems(503), name="readyz"
)
def ready(request: Request) -> Health:
    """Answers 503 while it cannot serve."""
    with state_of(request).store.session() as session:
        found = session.scalar(text("SELECT version_num FROM alembic_version"))
    if found != _newest():
        raise HTTPException(503, f"the database has schema {found}, this server knows {_newest()}; restart it")
    return Health(status="ok")


@cache
def _newest() -> str | None:
    """The schema that this version of the package writes."""
    config = Config()
    folder = str(Path(store.__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", folder)
    return ScriptDirectory.from_config(config).get_current_head()
