"""What all routes share: settings, the store with its rooms, measurements of the server itself."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property

import anyio
from fastapi import Request

from ...store import Access, Artifacts, Events, Queue, Store, Workers
from ..settings import Settings
from .metrics import Metrics

_STREAM_THREADS = 8
_UPLOAD_THREADS = 4


@dataclass
class State:
    """Of an app.

    Attributes:
        settings: of the service.
        store: opened once; its pool serves all threads.
        open_streams: of events, now.
        stopping: once set, event streams end, so that a server that shuts down need not wait for their clients.
    """

    settings: Settings
    store: Store
    stopping: threading.Event = field(default_factory=threading.Event)
    open_streams: int = 0

    @cached_property
    def queue(self) -> Queue:
        """Jobs as people see them."""
        return Queue(self.store)

    @cached_property
    def access(self) -> Access:
        """Users, tokens, the audit trail."""
        return Access(self.store)

    @cached_property
    def events(self) -> Events:
        """Logs and progress."""
        return Events(self.store)

    @cached_property
    def artifacts(self) -> Artifacts:
        """Files."""
        return Artifacts(self.store)

    @cached_property
    def workers(self) -> Workers:
        """Who runs jobs."""
        return Workers(self.store)

    @cached_property
    def metrics(self) -> Metrics:
        """What Prometheus collects."""
        return Metrics(self.store)

    @cached_property
    def stream_threads(self) -> anyio.CapacityLimiter:
        """Threads in which event streams ask the database, apart from those of the other routes."""
        return anyio.CapacityLimiter(_STREAM_THREADS)

    @cached_property
    def upload_threads(self) -> anyio.CapacityLimiter:
        """Threads that receive files; more uploads at a time wait."""
        return anyio.CapacityLimiter(_UPLOAD_THREADS)


def state_of(request: Request) -> State:
    """The state of the app that a request came to."""
    found: State = request.app.state.bitfront
    return found
