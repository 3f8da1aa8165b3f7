"""The other process of the check back: loads artifacts, runs them on given inputs, times them.

Run as a script, ``python verify_process.py REQUEST.json``; it imports numpy and what the loader imports. bitfront
cannot be imported in it: an artifact that needed it would be no artifact.

===============  ======================================================================================================
key of REQUEST   meaning
===============  ======================================================================================================
``loader``       a Python file, see ``protocol.Runtime``
``artifacts``    ``[{path, settings}]``; the first is checked, all are timed
``batches``      .npz files, in order
``probe``        one more, with another batch size, or null
``timed``        position of the batch that is timed
``rounds``       passes of each artifact; ``seconds``: most time for them
``clock``        ``wall``, or ``cpu``: the time that the process computed, which other work changes little
``answers``      a folder: an .npz of outputs for each batch, and ``result.json``
===============  ======================================================================================================
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_WARM_UP = 3


def main(request_path: str) -> int:
    """Carry out a request; 0, or 3 with the failed stage and the first line of the error in ``result.json``."""
    request = json.loads(Path(request_path).read_text())
    answers = Path(request["answers"])
    result: dict[str, Any] = {"stage": "load"}
    try:
        _carry_out(request, answers, result)
    except Exception as cause:  # noqa: BLE001  anything that a runtime raises is the answer
        lines = [line for line in str(cause).splitlines() if line.strip()] or [""]
        result["error"] = f"{type(cause).__name__}: {lines[0].strip()}"
    (answers / "result.json").write_text(json.dumps(result))
    return 3 if "error" in result else 0


def _carry_out(request: dict[str, Any], answers: Path, result: dict[str, Any]) -> None:
    specification = importlib.util.spec_from_file_location("bitfront_loader", request["loader"])
    assert specification is not None
    assert specification.loader is not None
    loader = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(loader)
    started = time.perf_counter()
    loaded = [loader.load(each["path"], each["settings"]) for each in request["artifacts"]]
    result["load_seconds"] = time.perf_counter() - started
    result["stage"] = "run"
    result["outputs"] = []
    batches = [_inputs(path) for path in request["batches"]]
    for number, inputs in enumerate(batches):
        found = loaded[0].run(inputs)
        arrays = {str(position): value for position, (_, value) in enumerate(found)}
        np.savez(answers / f"{number}.npz", **arrays)
        result["outputs"] = [name for name, _ in found]
    result["probe"] = _runs(loaded[0], request["probe"])
    result["stage"] = "details"
    result["details"] = loaded[0].details()
    result["stage"] = "time"
    if request["rounds"]:
        clock = time.process_time if request["clock"] == "cpu" else time.perf_counter
        given = batches[request["timed"]]
        result["milliseconds"] = _timed(loaded, given, request["rounds"], request["seconds"], clock)
    result["stage"] = "done"


def _inputs(path: str) -> list[tuple[str, Any]]:
    with np.load(path, allow_pickle=False) as file:
        return [(name.partition(":")[2], file[name]) for name in file.files]


def _runs(loaded: Any, probe: str | None) -> bool:
    """Whether it takes a batch of another size: a question, so an error is the answer no."""
    if probe is None:
        return False
    try:
        loaded.run(_inputs(probe))
    except Exception:  # noqa: BLE001  a runtime raises what it likes
        return False
    return True


def _timed(
    loaded: list[Any], inputs: list[tuple[str, Any]], rounds: int, seconds: float, clock: Callable[[], float]
) -> list[list[float]]:
    """Milliseconds of single passes, one artifact after the other in every round, so that all see the same machine.

    Each round begins with the next artifact: none of them always runs at the same place in a time slice.
    """
    for each in loaded:
        for _ in range(_WARM_UP):
            each.run(inputs)
    found: list[list[float]] = [[] for _ in loaded]
    end = time.perf_counter() + seconds
    for done in range(rounds):
        for turn in range(len(loaded)):
            number = (done + turn) % len(loaded)
            started = clock()
            loaded[number].run(inputs)
            found[number].append(1e3 * (clock() - started))
        if done >= 2 and time.perf_counter() > end:
            break
    return found


if __name__ == "__main__":
    sys.modules["bitfront"] = None  # type: ignore[assignment]
    raise SystemExit(main(sys.argv[1]))
