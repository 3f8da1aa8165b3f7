"""The app: routes, and the layers that every request passes.

From the outside in: security headers, timing, the audit trail, errors as answers, the gate (identity, rate, size), the
routes. Each layer is plain ASGI, so that streams pass through without being held up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from ...errors import InvalidInput
from ...store import Store
from ...version import __version__
from ..settings import Settings, is_loopback
from . import administration, artifacts, devices, errors, events, exports, fronts, health, jobs, metrics, uploads
from .gate import Gate
from .security_headers import SecurityHeaders
from .state import State
from .trail import Trail

_ABOUT = """Mixed-precision search as a service: submit jobs, watch them, decide on a front, export.

Every request but those to /healthz, /readyz and /openapi.json carries `Authorization: Bearer TOKEN`; viewers read,
submitters submit and control their own jobs, administrators do all. Errors are
`{"error": {"type", "message"}}`. Times are seconds since 1970 by the database's clock.
"""
_ROUTES = (jobs, events, fronts, exports, artifacts, devices, uploads, administration)


def create_app(settings: Settings, store: Store | None = None) -> FastAPI:
    """The HTTP API as an ASGI app.

    Args:
        settings: of the service.
        store: opened from the settings if not given, and then closed with the app.

    Raises:
        InvalidInput: the settings would let everybody in from other machines; the store cannot be opened.
    """
    if settings.insecure and not is_loopback(settings.host) and not settings.insecure_remote:
        raise InvalidInput(
            f"without tokens (--insecure) everybody who reaches {settings.host} would be an administrator; listen on "
            "127.0.0.1, or keep the tokens"
        )
    state = State(settings, store or Store(settings.store))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state.stopping.clear()
        yield
        state.stopping.set()
        if store is None:
            await run_in_threadpool(state.store.close)

    app = FastAPI(
        title="bitfront",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.bitfront = state
    errors.install(app)
    app.include_router(health.router)
    app.include_router(metrics.router)
    for routes in _ROUTES:
        app.include_router(routes.router, prefix=metrics.VERSION)
    app.add_middleware(Gate, state=state)  # the last one added is the outermost
    app.add_middleware(errors.Errors)
    app.add_middleware(Trail, state=state)
    app.add_middleware(metrics.Measured, metrics=state.metrics)
    app.add_middleware(SecurityHeaders)
    return app
