"""A process and all that descend from it: their memory, and their end."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import psutil

_VMSTAT = Path("/proc/vmstat")
_ACTOR = "ray::"  # how Ray titles the processes of actors


def out_of_memory_kills() -> int:
    """How many processes of this machine the kernel has killed because memory had run out; 0 where it does not say."""
    lines = _VMSTAT.read_text().splitlines() if _VMSTAT.is_file() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


class ProcessTree:
    """The processes of a job.

    Args:
        pid: of its first process, which leads a session of its own.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._seen: dict[int, psutil.Process] = {}

    def look(self) -> int:
        """Remember who descends from the first process now, to find them when it is gone; bytes of memory they hold."""
        try:
            root = psutil.Process(self.pid)
            for process in [root, *root.children(recursive=True)]:
                self._seen[process.pid] = process
        except psutil.NoSuchProcess:
            return 0
        return sum(_resident(process) for process in self._alive())

    def memory(self) -> int:
        """Bytes of memory that they hold, shared pages counted once; slower than ``look``, which counts them often."""
        return sum(_proportional(process) for process in self._alive())

    def largest_actor(self) -> psutil.Process | None:
        """The Ray actor that holds more memory than the job's first process and all other actors, if one does."""
        held = {process: _proportional(process) for process in self._alive()}
        actors = [process for process in held if _is_actor(_title(process))]
        largest = max(actors, key=held.__getitem__, default=None)
        first = next((size for process, size in held.items() if process.pid == self.pid), 0)
        return largest if largest is not None and held[largest] > first else None

    def kill(self) -> None:
        """Kill all of them, also those that have outlived the first."""
        self.look()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for process in self._alive():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _alive(self) -> list[psutil.Process]:
        """Those seen that still run; a process id that was given to another process does not count."""
        return [process for process in self._seen.values() if process.is_running()]


def _resident(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.NoSuchProcess):
        return int(process.memory_info().rss)
    return 0


def _proportional(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return int(process.memory_full_info().pss)
    return _resident(process)


def _is_actor(title: str) -> bool:
    """Ray's own agents have such titles, too, and a node does not live on without them."""
    return title.startswith(_ACTOR) and not title.split()[0].endswith("Agent")


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return " ".join(process.cmdline()) or process.name()
    return ""
