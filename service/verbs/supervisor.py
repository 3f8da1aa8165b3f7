"""Keeps the processes of a server running, and ends them with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

_LOOK_EVERY = 0.25  # seconds
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
_SOUND_AFTER = 60.0  # seconds of life after which the next death counts as a first one


@dataclass
class Program:
    """A process to keep running.

    Attributes:
        name: shown to people.
        arguments: of Python; ``{parent}`` stands for the id of this process.
        given: written to its standard input.
    """

    name: str
    arguments: Sequence[str]
    given: str = ""
    process: subprocess.Popen[str] | None = field(default=None, init=False)
    started: float = field(default=0.0, init=False)
    wait: float = field(default=_FIRST_WAIT, init=False)


class Supervisor:
    """Starts programs, starts again the ones that die, ends them all.

    Args:
        programs: what to run. Each runs in a session of its own: a Ctrl-C at the terminal reaches only this process,
            which then decides in which order things end.
    """

    def __init__(self, programs: Sequence[Program]) -> None:
        self._programs = list(programs)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    @property
    def pids(self) -> list[int]:
        """Process ids, of those that run."""
        return [each.process.pid for each in self._programs if each.process is not None]

    def start(self) -> None:
        """Start all."""
        for program in self._programs:
            self._launch(program)
        self._thread.start()

    def stop(self) -> None:
        """Ask all to end; none is started again."""
        self._stop.set()
        with self._lock:
            for program in self._programs:
                if program.process is not None and program.process.poll() is None:
                    program.process.send_signal(signal.SIGTERM)

    def join(self, seconds: float) -> None:
        """Wait for the ends of all; kill what is left after some seconds."""
        until = time.monotonic() + seconds
        for program in self._programs:
            if program.process is None:
                continue
            try:
                program.process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                sys.stderr.write(f"bitfront serve: {program.name} did not end within {seconds:g} s and is killed\n")
                program.process.kill()
                program.process.wait()

    def _launch(self, program: Program) -> None:
        arguments = [each.replace("{parent}", str(os.getpid())) for each in program.arguments]
        program.started = time.monotonic()
        program.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=sys.__stderr__,  # standard output is this process's own
            text=True,
            start_new_session=True,
        )
        assert program.process.stdin is not None
        try:
            with program.process.stdin as stream:
                stream.write(program.given)
        except BrokenPipeError:
            pass  # it is dead already: found so at the next look

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_EVERY):
            for program in self._programs:
                assert program.process is not None
                code = program.process.poll()
                if code is None:
                    continue
                lived = time.monotonic() - program.started
                program.wait = _FIRST_WAIT if lived > _SOUND_AFTER else min(2.0 * program.wait, _LONGEST_WAIT)
                sys.stderr.write(
                    f"bitfront serve: {program.name} ended with {code}; started again in {program.wait:g} s\n"
                )
                if self._stop.wait(program.wait):
                    return
                with self._lock:
                    if not self._stop.is_set():
                        self._launch(program)
