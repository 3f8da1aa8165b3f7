"""Progress of a job as events in the store, lines in its log, and what its worker is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from ...errors import LeaseLost
from ...store import Events
from .job_store import Evaluated
from .pipe import Teller
from .redaction import redacted

_EVERY = 0.5  # seconds between two transactions, and between two messages to the worker
_MOST = 20_000  # events that wait for a database that does not answer; later ones are in the log file only
_LAST_TRIES = 5
_SEARCH = "search"  # the stage whose steps are evaluations


class EventProgress:
    """Writes what a search tells, in a transaction every half a second; use it as a context manager.

    A database that does not answer holds no job up: the events wait for it. A lost lease does: the next call raises.

    Args:
        events: of a leased store.
        job_id: whose.
        teller: the worker's pipe.
        log: file that every line is appended to.
        evaluations: that the job asks for.
    """

    def __init__(self, events: Events, job_id: str, teller: Teller, log: Path, evaluations: int) -> None:
        self._events, self._job_id, self._teller, self._log = events, job_id, teller, log
        self._now: dict[str, Any] = {"evaluated": 0, "evaluations": evaluations, "status": ""}
        self._begin("start", 1)
        self._told = 0.0
        self._waiting: list[tuple[str, dict[str, Any]]] = []
        self._lock, self._order = threading.Lock(), threading.Lock()
        self._lost: LeaseLost | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        log.parent.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> EventProgress:
        self._tell(at_once=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        for _ in range(_LAST_TRIES):
            if self._flush():
                return
            time.sleep(_EVERY)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[float], None]]:
        """A stage of ``total`` steps."""
        started, done = time.perf_counter(), 0.0
        self._begin(name, total)
        self._write("stage", {"stage": name, "state": "started", "total": total}, f"{name}: started ({total} steps)")
        self._tell(at_once=True)

        def advance(steps: float) -> None:
            nonlocal done
            done += steps
            self._at(done, (time.perf_counter() - started) * (self._now["total"] - done) / done if done else None)
            self._tell()

        yield advance
        seconds = time.perf_counter() - started
        content = {"stage": name, "state": "done", "seconds": round(seconds, 3)}
        self._write("stage", content, f"{name}: done in {seconds:.2f} s")
        self._at(self._now["total"], 0.0)
        self._tell(at_once=True)

    def note(self, text: str) -> None:
        """One line of what was found out."""
        self._write("log", {"line": redacted(text)}, text)

    def status(self, text: str) -> None:
        """How far the running stage has come."""
        self._now = {**self._now, "status": text}
        self._write("progress", self._now, text)
        self._tell()

    def evaluated(self, found: Evaluated) -> None:
        """One evaluation was committed."""
        measured = found.measurement
        content = {
            "configuration": found.configuration.digest,
            "split": measured.split,
            "metric": measured.metric,
            "value": measured.value,
            "low": measured.low,
            "high": measured.high,
            "samples": measured.samples,
            "seconds": round(measured.seconds, 4),
            "worker": found.worker,
        }
        self._add("evaluation", content)

    def _begin(self, name: str, total: int) -> None:
        self._now = {**self._now, "stage": name, "done": 0.0, "total": max(total, 1), "eta_seconds": None, "status": ""}

    def _at(self, done: float, eta: float | None) -> None:
        done = min(done, self._now["total"])
        evaluated = round(done) if self._now["stage"] == _SEARCH else self._now["evaluated"]
        left = None if eta is None else max(eta, 0.0)
        self._now = {**self._now, "done": done, "eta_seconds": left, "evaluated": evaluated}

    def _tell(self, *, at_once: bool = False) -> None:
        if at_once or time.perf_counter() - self._told >= _EVERY:
            self._told = time.perf_counter()
            self._teller.progress(self._now)

    def _write(self, kind: str, content: dict[str, Any], line: str) -> None:
        with self._log.open("a") as stream:
            stream.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {redacted(line)}\n")
        self._add(kind, content)

    def _add(self, kind: str, content: dict[str, Any]) -> None:
        if self._lost is not None:
            raise self._lost
        with self._lock:
            if len(self._waiting) < _MOST:
                self._waiting.append((kind, content))

    def _run(self) -> None:
        while not self._ended.wait(_EVERY):
            self._flush()

    def _flush(self) -> bool:
        """Write what waits; whether nothing is left to be written."""
        with self._order:
            with self._lock:
                batch, self._waiting = self._waiting, []
            try:
                self._events.add(self._job_id, batch)
            except LeaseLost as cause:
                self._lost = cause
            except SQLAlchemyError:
                with self._lock:
                    self._waiting = [*batch, *self._waiting]
                return False
        return True
