"""A server and workers as processes, for ``benchmarks/faults.py``: started, found, killed, started again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from bitfront.service.client import Client
from service_data import free_port

HERE = Path(__file__).parent
BITFRONT = Path(sys.executable).with_name("bitfront")
LEASE_SECONDS = 3.0
VICTIMS = ("worker", "job", "actor", "server")


class Cluster:
    """An API server and one worker for each executor, on one store.

    Args:
        folder: for settings, outputs, uploads and what the processes print.
        store: URL.
        executors: of the workers.
    """

    def __init__(self, folder: Path, store: str, executors: list[str]) -> None:
        self.folder, self.port = folder, free_port()
        self._names = ["server", *(f"worker {number}" for number in range(len(executors)))]
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._seen: dict[int, psutil.Process] = {}
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "faults_model.py", folder)
        draw = np.random.default_rng(0)
        for name in ("calibration", "validation"):
            np.savez(folder / f"{name}.npz", inputs=draw.standard_normal((32, 3, 8, 8), dtype=np.float32))
        for name, executor in zip(self._names, ["local", *executors], strict=True):
            settings: dict[str, Any] = {
                "store": store,
                "outputs": str(folder / "jobs"),
                "uploads": str(folder / "uploads"),
                "port": self.port,
                "executor": executor,
                "allowed_modules": ["faults_model"],
                "limits": {"lease_seconds": LEASE_SECONDS, "back_off": 0.0},
            }
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings))

    def __enter__(self) -> Cluster:
        token = self.start("server")["token"]
        self.client = Client(f"http://127.0.0.1:{self.port}", token)
        for name in self._names[1:]:
            self.start(name)
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()
        for process in [*self._processes.values(), *self._seen.values()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for one in self._processes.values():
            one.wait()

    def start(self, name: str) -> dict[str, Any]:
        """Start a process and wait until it says that it is ready; what it says."""
        verb = ["serve", "--no-worker"] if name == "server" else ["worker"]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
        }
        with (self.folder / f"{name}.err").open("a") as errors:
            process = subprocess.Popen(
                [BITFRONT, *verb, "--json", "--config", self.folder / f"{name}.yaml"],
                cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True,
                start_new_session=True,
            )  # fmt: skip
        self._processes[name] = process
        assert process.stdout is not None
        with process.stdout as stream:
            line = stream.readline()
        if not line:
            raise SystemExit(f"{name} did not start; see {self.folder / f'{name}.err'}")
        ready: dict[str, Any] = json.loads(line)
        return ready

    def find(self, kind: str) -> list[psutil.Process]:
        """The processes of one kind that run now."""
        if kind == "server":
            return [psutil.Process(self._processes["server"].pid)]
        found = []
        for name in self._names[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker = psutil.Process(self._processes[name].pid)
                family = worker.children(recursive=True)
                self._seen.update({each.pid: each for each in family})
                found += [worker] if kind == "worker" else [each for each in family if _is(each, kind)]
        return found

    def kill(self, victim: psutil.Process, kind: str) -> None:
        """SIGKILL; a server or worker is started again."""
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
        for name, process in list(self._processes.items()):
            if process.pid == victim.pid:
                process.wait()
                self.start(name)

    def drain(self) -> dict[str, int]:
        """SIGTERM to all; their exit codes."""
        for kind in VICTIMS:
            self.find(kind)
        for process in self._processes.values():
            process.terminate()
        return {name: process.wait(120) for name, process in self._processes.items()}

    def left(self, seconds: float = 120.0) -> list[str]:
        """What still runs of all processes that were seen below workers; agents of a killed Ray end after a while."""
        until = time.monotonic() + seconds
        while (alive := list(_alive(self._seen.values()))) and time.monotonic() < until:
            time.sleep(0.2)
        return alive


def _is(process: psutil.Process, kind: str) -> bool:
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "bitfront.service.worker.child" in title if kind == "job" else title.startswith("ray::ShardWorker")


def _alive(processes: Any) -> Iterator[str]:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                yield f"{process.pid} {process.name()}"
