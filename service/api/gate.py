"""The gate: nothing reaches a route before it is known who asks, how often, from where, and how long the body is."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from urllib.parse import urlsplit

import anyio
from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...store import Identity
from ..settings import Settings, is_loopback
from .buckets import Buckets
from .notes import notes_in
from .state import State

ANONYMOUS = Identity("anonymous", "admin")  # where the server was started with --insecure
OPEN = ("/healthz", "/readyz", "/openapi.json")
_UPLOADS = ("/v1/uploads", "/v1/tables")
_SAFE = ("GET", "HEAD", "OPTIONS")
_MOST_KNOWN = 10_000


class Gate:
    """ASGI middleware around the routes; it raises ``HTTPException`` for what may not pass.

    Args:
        app: the routes.
        state: of the server.
    """

    def __init__(self, app: ASGIApp, state: State) -> None:
        self.app, self.state = app, state
        self.requests = Buckets(state.settings.requests_per_minute)
        self.failures = Buckets(state.settings.failures_per_minute)
        self._good: OrderedDict[str, None] = OrderedDict()  # hashes of tokens that were valid when last seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass or raise."""
        if scope["type"] == "http":
            request = Request(scope)
            notes = notes_in(scope)
            address = request.client.host if request.client else "unknown"
            if self.state.settings.insecure:
                _same_site(request, self.state.settings)
            if request.url.path in OPEN:
                self._rate(scope, f"address {address}")
            else:
                notes.who = await self._identified(request, address)
                self._rate(scope, f"user {notes.who.name}")
            receive = self._limited(request, receive)
        await self.app(scope, receive, send)

    async def _identified(self, request: Request, address: str) -> Identity:
        """Who asks.

        Floods of wrong tokens are stopped before they reach the database; tokens that were valid lately pass even when
        somebody else at the same address sends wrong ones, and are looked up all the same.
        """
        if self.state.settings.insecure:
            return ANONYMOUS
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        digest = hashlib.sha256(token.encode()).hexdigest()
        if digest not in self._good and (wait := self.failures.take(address, 0.0)):
            notes_in(request.scope).audited = False  # the attempts that emptied the bucket are in the trail
            raise HTTPException(429, "too many requests without a valid token", {"Retry-After": str(wait)})
        challenge = {"WWW-Authenticate": "Bearer"}
        if kind.lower() != "bearer" or not token:
            self.failures.take(address)
            raise HTTPException(
                401, "no token: send one in the header `Authorization`, after the word Bearer", challenge
            )
        found = await run_in_threadpool(self.state.access.identify, token)
        if found is None:
            self.failures.take(address)
            self._good.pop(digest, None)
            raise HTTPException(401, "unknown or expired token: ask an administrator for a new one", challenge)
        self._good[digest] = None
        self._good.move_to_end(digest)
        if len(self._good) > _MOST_KNOWN:
            self._good.popitem(last=False)
        return found

    def _rate(self, scope: Scope, key: str) -> None:
        wait = self.requests.take(key)
        if wait:
            notes_in(scope).audited = False
            most = self.state.settings.requests_per_minute
            raise HTTPException(429, f"more than {most} requests a minute", {"Retry-After": str(wait)})

    def _limited(self, request: Request, receive: Receive) -> Receive:
        """The body, no longer and no slower than allowed; chunked bodies declare no length."""
        settings = self.state.settings
        upload = request.method == "POST" and request.url.path in _UPLOADS
        most = settings.most_upload_bytes if upload else settings.most_body_bytes
        too_long = HTTPException(413, f"the body is longer than {most} bytes")
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and (len(declared) > 18 or int(declared) > most):
            raise too_long
        seen, complete = 0, False

        async def take() -> Message:
            nonlocal seen, complete
            if complete:
                return await receive()
            with anyio.move_on_after(settings.body_seconds) as scope:
                message = await receive()
            if scope.cancelled_caught:
                raise HTTPException(408, f"nothing of the body came for {settings.body_seconds:g} s")
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if seen > most:
                    raise too_long
            return message

        return take


def _same_site(request: Request, settings: Settings) -> None:
    """Refuse what web pages of others make a browser send: without tokens the browser's reach is all they need.

    Raises:
        HTTPException: 403: the name that was asked for is not this server's (DNS rebinding), or a page of another
            origin asks.
    """
    host = request.url.hostname or ""
    if is_loopback(settings.host) and not is_loopback(host):
        raise HTTPException(403, f"this server without tokens answers on localhost only, not as {host!r}")
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.url.netloc:
        raise HTTPException(403, "a server without tokens takes no requests of other web pages")
