"""One leased job: its process from start to end, watched."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import IO

from ...store import Claims, Lease
from ..settings import Settings
from .heartbeat import Heartbeat
from .job_end import Ended, JobEnd
from .order import Order
from .pipe import Listener
from .process_tree import ProcessTree, out_of_memory_kills
from .redaction import redacted

_LOOK_EVERY = 0.2  # seconds between two looks at the process
_MEASURE_EVERY = 0.5  # seconds between two looks at its memory
_TAIL = 8000  # characters of what the process printed that are kept
_LINES = 40
CHILD = ("-m", "bitfront.service.worker.child")
_SECRETS = ("BITFRONT_STORE", "BITFRONT_TOKEN")  # not for what runs in the job


class JobProcess:
    """Runs the job of a lease in a process of its own and ends the lease.

    The process is asked to stop with SIGINT when somebody asked for it, when its time is over or the worker drains:
    it ends after what it is measuring. After half of the grace period it is asked again and stops at once, after the
    whole it is killed. When the lease is lost it is killed at once.

    Args:
        settings: of the service.
        claims: of the queue.
        lease: of the job.
        program: arguments of Python that run a job.
        gpus: that the job alone may use; none: it sees what its worker sees.
    """

    def __init__(
        self,
        settings: Settings,
        claims: Claims,
        lease: Lease,
        program: Sequence[str] = CHILD,
        gpus: Sequence[str] = (),
    ) -> None:
        self._settings, self._claims, self._lease, self._program = settings, claims, lease, program
        self._gpus = gpus
        self._drained = threading.Event()
        self._killed = ""

    def drain(self) -> None:
        """Ask the job to stop and give it back, because its worker is to end."""
        self._drained.set()

    def run(self) -> None:
        """Until the process has ended and the queue knows it."""
        end, kills = JobEnd(self._claims, self._lease), out_of_memory_kills()
        read, write = os.pipe()
        with tempfile.TemporaryFile() as printed:
            try:
                process = self._started(write, printed)
            except OSError as cause:
                os.close(read)
                end.failed_to_start(f"cannot start a process: {cause}")
                return
            finally:
                os.close(write)
            tree, listener = ProcessTree(process.pid), Listener(read)
            with Heartbeat(self._claims, self._lease, lambda: listener.progress) as heartbeat:
                try:
                    self._watch(process, tree, heartbeat)
                finally:
                    tree.kill()
                    process.wait()
                ended = Ended(
                    outcome=listener.outcome(),
                    code=process.returncode,
                    in_hand=listener.in_hand,
                    evaluated=listener.evaluated,
                    printed=_tail(printed),
                    wish=heartbeat.wish,
                    drained=self._drained.is_set(),
                    killed=self._killed,
                    progress=listener.progress,
                    out_of_memory=out_of_memory_kills() > kills,
                )
                end.tell(ended, heartbeat)

    def _started(self, write: int, printed: IO[bytes]) -> subprocess.Popen[bytes]:
        """The process, with its order on standard input: neither its arguments nor its environment hold a secret."""
        order = Order(
            store=self._settings.store,
            lease=self._lease,
            outputs=self._settings.outputs,
            executor=self._settings.executor,
            ray_address=self._settings.ray_address,
            parent=os.getpid(),
        )
        environment = {name: value for name, value in os.environ.items() if name not in _SECRETS}
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._gpus)
        process = subprocess.Popen(
            [sys.executable, *self._program, str(write)],
            stdin=subprocess.PIPE,
            stdout=printed,
            stderr=subprocess.STDOUT,
            pass_fds=(write,),
            start_new_session=True,
            env={"OMP_NUM_THREADS": "1", **environment},
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:  # it died at once: its exit code tells
            process.stdin.write(order.to_json().encode() + b"\n")
        return process

    def _watch(self, process: subprocess.Popen[bytes], tree: ProcessTree, heartbeat: Heartbeat) -> None:
        """Until the process has ended or is to be killed: pass wishes on, enforce limits."""
        asked, grace, measured = None, self._settings.grace_seconds, 0.0
        again = False
        while process.poll() is None:
            moment = time.monotonic()
            if heartbeat.lost:
                return
            if moment - measured > _MEASURE_EVERY:
                measured = moment
                if self._too_large(tree):
                    return
            if asked is None and (heartbeat.wish or self._drained.is_set()):
                asked = moment
                process.send_signal(signal.SIGINT)
            elif asked is not None and not again and moment > asked + grace / 2:
                again = True
                process.send_signal(signal.SIGINT)
            elif asked is not None and moment > asked + grace:
                self._killed = f"did not stop within {grace:g} s"
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_EVERY)

    def _too_large(self, tree: ProcessTree) -> bool:
        """Whether the processes hold more memory than they may; a Ray actor that is to blame is killed alone."""
        most = self._settings.most_memory_bytes
        if tree.look() <= (most or float("inf")) or most is None or (used := tree.memory()) <= most:
            return False
        actor = tree.largest_actor()
        if actor is not None:  # the search counts its death against the candidate that it had in hand
            actor.kill()
            return False
        self._killed = f"used {used / 1e9:.2f} GB of memory, allowed are {most / 1e9:.2f}"
        return True


def _tail(printed: IO[bytes]) -> list[str]:
    """The last lines that a process printed."""
    printed.seek(0, os.SEEK_END)
    printed.seek(max(0, printed.tell() - _TAIL))
    content = printed.read().decode(errors="replace").replace("\0", "")
    return [redacted(line) for line in content.splitlines() if line.strip()][-_LINES:]
