"""Starting the other process of the check back, with a limit on time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
from numpy.typing import NDArray

from ..errors import ExportMismatch, UnsupportedModel
from ..task import Batch
from .protocol import Runtime

_SCRIPT = Path(__file__).with_name("verify_process.py")
_LOOK = 0.02  # seconds between two looks at the memory of the process


@dataclass(frozen=True)
class Answer:
    """What the other process found.

    Attributes:
        outputs: for every batch the outputs in order.
        names: names of the outputs.
        details: what the loader told of itself.
        probe: whether the batch of another size ran.
        milliseconds: for every artifact, time of single passes by the clock that was asked for.
        peak_bytes: most resident memory of the process and its children that was seen.
    """

    outputs: list[list[NDArray[Any]]]
    names: list[str]
    details: dict[str, Any]
    probe: bool
    milliseconds: list[list[float]]
    peak_bytes: int


def run_apart(
    runtime: Runtime,
    artifacts: Sequence[tuple[Path, Mapping[str, Any]]],
    batches: Sequence[Batch],
    scratch: Path,
    *,
    probe: Batch | None = None,
    rounds: int = 0,
    seconds: float = 2.0,
    threads: int = 1,
    clock: Literal["wall", "cpu"] = "wall",
) -> Answer:
    """Load artifacts in a new process and run the first of them on batches.

    Args:
        runtime: how they are loaded.
        artifacts: path and loader settings of each; the first is run on the batches, all are timed on batch 0.
        batches: inputs.
        scratch: a folder for what the two processes hand each other.
        probe: inputs of another batch size, which may fail.
        rounds: timed passes of each artifact, interleaved; 0: none.
        seconds: after which timing ends early.
        threads: that the runtime may use.
        clock: ``wall`` time, or ``cpu``: what the process computed, for one thread on a machine with other work.

    Raises:
        UnsupportedModel: an artifact does not load, or takes more time or memory than the runtime allows.
        ExportMismatch: it loads and then fails on the batches.
    """
    answers = scratch / "answers"
    answers.mkdir(parents=True)
    files = [_write(batch, scratch / f"batch{number}.npz") for number, batch in enumerate(batches)]
    request = {
        "loader": str(runtime.loader),
        "artifacts": [{"path": str(path.resolve()), "settings": dict(settings)} for path, settings in artifacts],
        "batches": files,
        "probe": _write(probe, scratch / "probe.npz") if probe is not None else None,
        "timed": 0,
        "rounds": rounds,
        "seconds": seconds,
        "clock": clock,
        "answers": str(answers),
    }
    (scratch / "request.json").write_text(json.dumps(request))
    peak = _supervised(scratch, runtime, threads)
    result = json.loads((answers / "result.json").read_text())
    if "error" in result:
        if result["stage"] in ("run", "details", "time"):
            raise ExportMismatch(f"the artifact loads and then fails on the example inputs: {result['error']}")
        raise UnsupportedModel(f"the runtime does not load the artifact: {result['error']}")
    outputs = [_read(answers / f"{number}.npz") for number in range(len(files))]
    return Answer(outputs, result["outputs"], result["details"], result["probe"], result.get("milliseconds", []), peak)


def _supervised(scratch: Path, runtime: Runtime, threads: int) -> int:
    """Run the process to its end; its peak memory.

    Raises:
        UnsupportedModel: it died, or was ended because it took too much time or memory.
    """
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    peak, deadline = 0, time.monotonic() + runtime.seconds
    with (scratch / "stderr.txt").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-I", str(_SCRIPT), str(scratch / "request.json")],
            cwd=scratch,
            env={**os.environ, **limits},
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )
        try:
            while True:
                try:
                    process.wait(_LOOK)
                    break
                except subprocess.TimeoutExpired:
                    peak = max(peak, _resident(process.pid))
                if peak > runtime.memory_bytes:
                    raise UnsupportedModel(
                        f"loading and running the artifact took {peak / 1e9:.2f} GB of memory, more than the "
                        f"{runtime.memory_bytes / 1e9:.2f} GB that are allowed; export a smaller model"
                    )
                if time.monotonic() > deadline:
                    raise UnsupportedModel(
                        f"loading and running the artifact took more than {runtime.seconds:g} s; give fewer samples"
                    )
        finally:
            _end(process)
    if not (scratch / "answers" / "result.json").is_file():
        lines = (scratch / "stderr.txt").read_text(errors="replace").strip().splitlines() or ["no message"]
        raise UnsupportedModel(f"the runtime died with exit code {process.returncode}: {lines[-1][:300]}")
    return peak


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and its children, if they still run."""
    if process.poll() is not None:
        return
    parent = psutil.Process(process.pid)
    for each in [*parent.children(recursive=True), parent]:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


def _resident(pid: int) -> int:
    """Resident memory of a process and its children in bytes; 0 once it has ended."""
    total = 0
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for each in family:
        try:
            total += each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def _write(batch: Batch, path: Path) -> str:
    """The inputs of a batch, numbered so that they keep their order: ``"0:input_ids"``."""
    arrays = {
        f"{position}:{name}": tensor.detach().cpu().numpy()
        for position, (name, tensor) in enumerate(batch.tensors.items())
    }
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


def _read(path: Path) -> list[NDArray[Any]]:
    with np.load(path, allow_pickle=False) as file:
        return [file[str(position)] for position in range(len(file.files))]
