"""What the process of a job tells its worker, as JSON lines over a pipe: progress, what is in hand, the outcome.

What was written before a process died can still be read, so the worker knows what the process was doing then.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Ending = Literal["succeeded", "bad_input", "failed", "unavailable", "stopped"]


@dataclass(frozen=True)
class Outcome:
    """How the process of a job ended by its own account.

    Attributes:
        ending: ``succeeded``; ``bad_input``: trying again would not help; ``failed``; ``unavailable``: the database
            could not be reached, which is not the job's fault; ``stopped``: as it was asked to.
        message: one line.
    """

    ending: Ending
    message: str


@dataclass(frozen=True)
class InHand:
    """Candidates that are being evaluated together.

    Attributes:
        context: ``evaluation_context`` of the split.
        split: on which split.
        candidates: site name -> format name, of each.
    """

    context: str
    split: str
    candidates: tuple[dict[str, str], ...]


class Teller:
    """The job's end of the pipe.

    Args:
        descriptor: file descriptor to write to.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)  # what the job starts does not keep the pipe open
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def progress(self, found: Mapping[str, Any]) -> None:
        """How far the job has come."""
        self._write({"progress": dict(found)})

    def in_hand(self, context: str, split: str, candidates: Sequence[Mapping[str, str]]) -> None:
        """What is evaluated from now on."""
        self._write(
            {"in_hand": {"context": context, "split": split, "candidates": [dict(each) for each in candidates]}}
        )

    def put_down(self, *, done: bool) -> None:
        """Nothing is in hand any more; ``done``: because it was evaluated."""
        self._write({"put_down": done})

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

    Attributes:
        progress: the newest, ``None`` before the first.
        in_hand: what the process is evaluating, or was when it died.
        evaluated: whether it has evaluated anything.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.progress: dict[str, Any] | None = None
        self.in_hand: InHand | None = None
        self.evaluated = False
        self._outcome: Outcome | None = None
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def outcome(self, seconds: float = 5.0) -> Outcome | None:
        """The outcome, once the process has ended; ``None`` if it died without a word."""
        self._thread.join(seconds)
        return self._outcome

    def _listen(self) -> None:
        with os.fdopen(self._descriptor, "rb") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    return  # torn: the process died while it wrote
                self._take(json.loads(line))

    def _take(self, content: Mapping[str, Any]) -> None:
        if "progress" in content:
            self.progress = content["progress"]
        elif "in_hand" in content:
            found = content["in_hand"]
            self.in_hand = InHand(found["context"], found["split"], tuple(found["candidates"]))
        elif "put_down" in content:
            self.in_hand, self.evaluated = None, self.evaluated or content["put_down"]
        elif "outcome" in content:
            self._outcome = Outcome(**content["outcome"])
