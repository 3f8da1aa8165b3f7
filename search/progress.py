"""Progress: how a search tells what it is doing, without knowing who watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[float], None]


class Progress(Protocol):
    """What a watcher implements."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Advance]:
        """A stage of ``total`` steps; the value of the ``with`` block is called with the steps done."""
        ...

    def note(self, text: str) -> None:
        """One line of what was found out."""
        ...

    def status(self, text: str) -> None:
        """How far the running stage has come, beside its bar; replaces the last one."""
        ...


class Silent:
    """Nobody watches."""

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Advance]:
        """A stage that reports nowhere."""
        yield lambda steps: None

    def note(self, text: str) -> None:
        """Drop the line."""

    def status(self, text: str) -> None:
        """Drop the line."""
