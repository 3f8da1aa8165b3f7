"""Progress of a job as events in the store, lines in its log, and what its worker is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...store import Events
from .pipe import Teller

_EVERY = 0.5  # seconds between two messages of one stage


class EventProgress:
    """Writes what a search tells.

    Args:
        events: of a leased store.
        job_id: whose.
        teller: the worker's pipe.
        log: file that every line is appended to.
    """

    def __init__(self, events: Events, job_id: str, teller: Teller, log: Path) -> None:
        self._events, self._job_id, self._teller, self._log = events, job_id, teller, log
        self._now: dict[str, Any] = {}
        self._told = 0.0
        log.parent.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[float], None]]:
        """A stage of ``total`` steps."""
        started, done = time.perf_counter(), 0.0
        self._now = {"stage": name, "done": 0.0, "total": max(total, 1), "eta_seconds": None, "status": ""}
        self._write("stage", {"stage": name, "state": "started", "total": total}, f"{name}: started ({total} steps)")
        self._tell(at_once=True)

        def advance(steps: float) -> None:
            nonlocal done
            done += steps
            spent = time.perf_counter() - started
            left = spent * (self._now["total"] - done) / done if done else None
            self._now |= {
                "done": min(done, self._now["total"]),
                "eta_seconds": None if left is None else max(left, 0.0),
            }
            self._tell()

        yield advance
        seconds = time.perf_counter() - started
        content = {"stage": name, "state": "done", "seconds": round(seconds, 3)}
        self._write("stage", content, f"{name}: done in {seconds:.2f} s")
        self._now |= {"done": self._now["total"], "eta_seconds": 0.0}
        self._tell(at_once=True)

    def note(self, text: str) -> None:
        """One line of what was found out."""
        self._write("log", {"line": text}, text)

    def status(self, text: str) -> None:
        """How far the running stage has come."""
        self._now |= {"status": text}
        self._write("progress", dict(self._now), text)
        self._tell()

    def _tell(self, *, at_once: bool = False) -> None:
        if at_once or time.perf_counter() - self._told >= _EVERY:
            self._told = time.perf_counter()
            self._teller.progress(self._now)

    def _write(self, kind: str, content: dict[str, Any], line: str) -> None:
        with self._log.open("a") as stream:
            stream.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {line}\n")
        self._events.add(self._job_id, [(kind, content)])
