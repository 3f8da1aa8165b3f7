"""`bitfront run` is killed with SIGKILL at random moments and started again, round after round, on every executor.

    python benchmarks/kill.py --rounds 50 --executor ray

A round starts with an empty store, kills the process group ``--kills`` times, each after a random part of the time that
an undisturbed run takes, and lets the last start end. It fails unless what was committed stays as it was, the final
evaluations are those of the undisturbed run, and the front is the same.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

JOB = {
    "name": "digits",
    "model": {"zoo": "digits_resnet20"},
    "data": {"calibration": 64, "validation": 64, "holdout": 64},
    "space": {"formats": ["w2", "w3", "w4", "w8"]},
    "quality": "kl",
    "objectives": ["quality", "size_mb"],
    "constraints": {"avg_bits": 5.0},
    "proxies": ["weight_mse"],
    "search": {"evaluations": 24},
    "workers": {"count": 2},
    "export": None,
}


def start(folder: Path, executor: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [Path(sys.executable).with_name("bitfront"), "run", "job.yaml", "--out", "out", "--executor", executor],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "BITFRONT_STORE": f"sqlite:///{folder}/store.db"},
        start_new_session=True,
    )


def prepared(place: str) -> Path:
    folder = Path(place)
    (folder / "job.yaml").write_text(yaml.safe_dump(JOB))
    return folder


def committed(folder: Path) -> dict[tuple[str, str], tuple[Any, ...]]:
    if not (folder / "store.db").exists():
        return {}
    connection = sqlite3.connect(folder / "store.db", timeout=60)
    try:
        rows = connection.execute("SELECT configuration, split, value, created_at FROM evaluations").fetchall()
    except sqlite3.OperationalError:
        rows = []
    finally:
        connection.close()
    return {row[:2]: row[2:] for row in rows}


def front(folder: Path) -> list[Any]:
    document = json.loads((folder / "out/front.json").read_text())
    return [
        [point["id"], point["digest"], point["pareto"], point["measured"]["validation"]["value"]]
        for point in document["points"]
    ]


def one_round(seed: int, kills: int, executor: str, seconds: float, wanted: list[Any], keys: set[Any]) -> list[int]:
    """Rows committed at each kill."""
    moments = np.random.default_rng(seed)
    counts = []
    with tempfile.TemporaryDirectory() as place:
        folder = prepared(place)
        for attempt in range(kills + 1):
            before = committed(folder)
            process = start(folder, executor)
            try:
                process.wait(None if attempt == kills else float(moments.uniform(0.1, 1.0)) * seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            after = committed(folder)
            counts.append(len(after))
            if {key: after.get(key) for key in before} != before:
                raise SystemExit(f"round {seed}: a committed evaluation was lost or written again")
        if process.returncode != 0 or front(folder) != wanted or set(committed(folder)) != keys:
            raise SystemExit(f"round {seed}: the end differs from that of the undisturbed run")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--executor", choices=["local", "ray"], default="local")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = prepared(place)
        begun = time.perf_counter()
        if start(folder, arguments.executor).wait() != 0:
            raise SystemExit("the undisturbed run failed; see `bitfront run` on the job in this file")
        seconds, wanted, keys = time.perf_counter() - begun, front(folder), set(committed(folder))
    print(f"undisturbed: {seconds:.1f} s, {len(keys)} evaluations")
    for seed in range(arguments.rounds):
        counts = one_round(seed, arguments.kills, arguments.executor, seconds, wanted, keys)
        print(f"round {seed}: committed after each start {counts}, same front", flush=True)
    print(f"{arguments.rounds} rounds, {arguments.rounds * arguments.kills} kills: nothing lost, nothing done twice")


if __name__ == "__main__":
    main()
