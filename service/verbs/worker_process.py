"""A worker as a process: of ``bitfront worker``, or of a server that starts it and that it ends with.

``python -m bitfront.service.verbs.worker_process PARENT`` reads the settings on standard input, so that neither
arguments nor environment hold the URL of the store. It drains when its parent dies.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from ..settings import Settings

if TYPE_CHECKING:
    from ..worker import JobWorker

_PR_SET_PDEATHSIG = 1


def run_worker(settings: Settings, ready: Callable[[JobWorker], None] | None = None) -> None:
    """Run jobs until SIGINT or SIGTERM: then no new ones, and those that run are given back.

    A second Ctrl-C ends at once; SIGTERM may come several times, as service managers send it to all processes.

    Args:
        settings: of the service.
        ready: called with the worker before it looks for jobs.
    """
    from ..worker import JobWorker

    stop, asked = threading.Event(), False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            os._exit(130)  # the processes of its jobs die with it, their leases run out
        asked = True
        # not here: the main thread may hold the event's lock
        threading.Thread(target=stop.set, daemon=True).start()

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    worker = JobWorker(settings)
    if ready is not None:
        ready(worker)
    worker.serve(stop)


def drain_with(parent: int) -> bool:
    """Be told to drain by the kernel when the parent dies; ``False``: it already has."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return os.getppid() == parent


def main() -> int:
    """Entry point of the process."""
    from ...errors import BitfrontError
    from ..settings_file import from_json

    settings = from_json(sys.stdin.readline())
    if not drain_with(int(sys.argv[1])):
        return 1
    try:
        run_worker(settings)
    except BitfrontError as cause:
        sys.stderr.write(f"bitfront worker: {' '.join(str(cause).split())}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
