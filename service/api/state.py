"""What all routes share: settings, and the store with its rooms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from fastapi import Request

from ...store import Access, Artifacts, Events, Queue, Store, Workers
from ..settings import Settings


@dataclass
class State:
    """Of an app.

    Attributes:
        settings: of the service.
        store: opened once; its pool serves all threads.
    """

    settings: Settings
    store: Store

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


def state_of(request: Request) -> State:
    """The state of the app that a request came to."""
    found: State = request.app.state.bitfront
    return found
