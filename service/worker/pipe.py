"""What the process of a job tells its worker, as JSON lines over a pipe: progress, and at the end the outcome."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Ending = Literal["succeeded", "bad_input", "failed", "stopped"]


@dataclass(frozen=True)
class Outcome:
    """How the process of a job ended by its own account.

    Attributes:
        ending: ``succeeded``; ``bad_input``: trying again would not help; ``failed``; ``stopped``: as it was asked to.
        message: one line.
    """

    ending: Ending
    message: str


class Teller:
    """The job's end of the pipe.

    Args:
        descriptor: file descriptor to write to.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def progress(self, found: Mapping[str, Any]) -> None:
        """How far the job has come."""
        self._write({"progress": dict(found)})

    def outcome(self, outcome: Outcome) -> None:
        """How it ended; the last line."""
        self._write({"outcome": asdict(outcome)})

    def _write(self, line: Mapping[str, Any]) -> None:
        content = json.dumps(line).encode() + b"\n"
        with self._lock:
            while content:
                content = content[os.write(self._descriptor, content) :]


class Listener:
    """The worker's end: a thread that reads until the process has closed the pipe.

    Args:
        descriptor: file descriptor to read from; closed at the end.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._progress: dict[str, Any] | None = None
        self._outcome: Outcome | None = None
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def progress(self) -> dict[str, Any] | None:
        """The newest progress, ``None`` before the first."""
        return self._progress

    def outcome(self, seconds: float = 5.0) -> Outcome | None:
        """The outcome, once the process has ended; ``None`` if it died without a word."""
        self._thread.join(seconds)
        return self._outcome

    def _listen(self) -> None:
        with os.fdopen(self._descriptor, "rb") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    return  # torn: the process died while it wrote
                content = json.loads(line)
                if "progress" in content:
                    self._progress = content["progress"]
                elif "outcome" in content:
                    self._outcome = Outcome(**content["outcome"])
