"""One leased job, from the start of its process to its end in the queue."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import psutil

from ...errors import LeaseLost
from ...store import Claims, Lease, Wish
from ..settings import Settings
from .child import Order
from .heartbeat import Heartbeat
from .pipe import Listener, Outcome

_LOOK_EVERY = 0.2  # seconds between two looks at the process
_TAIL = 2000  # characters of what the process printed that a failure tells


class JobProcess:
    """Runs the job of a lease in a process of its own and ends the lease.

    Args:
        settings: of the service.
        claims: of the queue.
        lease: of the job.
    """

    def __init__(self, settings: Settings, claims: Claims, lease: Lease) -> None:
        self._settings, self._claims, self._lease = settings, claims, lease
        self._wish: Wish = ""
        self._why_killed = ""
        self._lost = False
        self._drained = threading.Event()
        self._stop_by: float | None = None

    def drain(self) -> None:
        """Ask the job to stop and give it back, because its worker is to end."""
        self._drained.set()

    def run(self) -> None:
        """Until the process has ended and the queue knows it."""
        read, write = os.pipe()
        with tempfile.TemporaryFile() as printed:
            order = Order(
                store=self._settings.store,
                lease=self._lease,
                outputs=self._settings.outputs,
                executor=self._settings.executor,
                ray_address=self._settings.ray_address,
                parent=os.getpid(),
            )
            process = subprocess.Popen(
                [sys.executable, "-m", "bitfront.service.worker.child", str(write)],
                stdin=subprocess.PIPE,
                stdout=printed,
                stderr=subprocess.STDOUT,
                pass_fds=(write,),
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
            )
            os.close(write)
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it died at once: its exit code tells
                process.stdin.write(order.to_json().encode() + b"\n")
                process.stdin.close()
            listener = Listener(read)
            with Heartbeat(self._claims, self._lease, listener.progress, self._asked, self._lose):
                self._watch(process)
                outcome = listener.outcome()
                _kill_tree(process.pid)
                if not self._lost:
                    self._end(outcome, process.returncode, _tail(printed))

    # -- while it runs ------------------------------------------------------------------------------------------------

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Until the process has ended: pass wishes on, enforce limits."""
        while process.poll() is None:
            if self._lost:
                _kill_tree(process.pid)
            elif (self._wish or self._drained.is_set()) and self._stop_by is None:
                self._stop_by = time.monotonic() + self._settings.grace_seconds
                process.send_signal(signal.SIGINT)
            elif self._stop_by is not None and time.monotonic() > self._stop_by:
                self._why_killed = self._why_killed or f"did not stop within {self._settings.grace_seconds:g} s"
                _kill_tree(process.pid)
            most = self._settings.most_memory_bytes
            if most is not None and not self._why_killed and (used := _memory(process.pid)) > most:
                self._why_killed = f"used {used / 1e9:.2f} GB of memory, allowed are {most / 1e9:.2f}"
                _kill_tree(process.pid)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_EVERY)

    def _asked(self, wish: Wish) -> None:
        self._wish = wish

    def _lose(self, reason: str) -> None:
        self._lost = True
        sys.stderr.write(f"bitfront worker: {reason}\n")

    # -- how it ended -------------------------------------------------------------------------------------------------

    def _end(self, outcome: Outcome | None, code: int, tail: str) -> None:
        """Tell the queue."""
        claims, lease = self._claims, self._lease
        with contextlib.suppress(LeaseLost):  # overtaken in the last moment: the other one tells the queue
            if outcome is not None and outcome.ending == "succeeded":
                claims.finish(lease, "succeeded", "Done", outcome.message)
            elif self._wish in ("pause", "cancel"):
                end = "paused" if self._wish == "pause" else "cancelled"
                claims.finish(lease, end, "Asked", self._why_killed or "stopped; what was measured is kept")
            elif self._wish == "over":
                claims.finish(
                    lease, "failed", "OutOfTime", "its budget of seconds is used up; what was measured is kept"
                )
            elif self._drained.is_set():
                claims.give_back(lease, "Drained", f"{lease.worker} was shut down", counts=False)
            elif self._why_killed:
                claims.give_back(lease, "Killed", f"killed by its worker: {self._why_killed}")
            elif outcome is not None and outcome.ending == "bad_input":
                claims.finish(lease, "failed", "BadInput", outcome.message)
            elif outcome is not None:
                claims.give_back(lease, "Failed", outcome.message)
            else:
                how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                claims.give_back(lease, "Crashed", f"its process ended without a word ({how}){tail}")


def _tail(printed: object) -> str:
    """The last lines that a process printed, in one."""
    stream = printed
    stream.seek(0, os.SEEK_END)  # type: ignore[attr-defined]
    stream.seek(max(0, stream.tell() - _TAIL))  # type: ignore[attr-defined]
    content = stream.read().decode(errors="replace")  # type: ignore[attr-defined]
    lines = [line for line in content.splitlines() if line.strip()]
    return f": {' | '.join(lines[-3:])}" if lines else ""


def _tree(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _memory(pid: int) -> int:
    """Bytes of memory that a process and its descendants hold (proportional set size: shared pages count once)."""
    total = 0
    for process in _tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += process.memory_full_info().pss
    return total


def _kill_tree(pid: int) -> None:
    """Kill what is left of the session that a process leads."""
    tree = _tree(pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
