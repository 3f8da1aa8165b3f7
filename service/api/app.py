"""The app: routes, errors, and what every answer carries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from ... import __version__
from ...store import Store
from ..settings import Settings
from . import errors, health, jobs
from .state import State


def create_app(settings: Settings, store: Store | None = None) -> FastAPI:
    """The HTTP API as an ASGI app.

    Args:
        settings: of the service.
        store: opened from the settings if not given.
    """
    state = State(settings, store or Store(settings.store))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        state.store.close()

    app = FastAPI(
        title="bitfront",
        version=__version__,
        description="Mixed-precision search as a service: submit jobs, watch them, decide on a front, export.",
        lifespan=lifespan,
    )
    app.state.bitfront = state
    errors.install(app)
    app.include_router(health.router)
    app.include_router(jobs.router, prefix="/v1")
    return app
