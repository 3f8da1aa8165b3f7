"""kill -9 at random moments of everything that runs jobs: API server, workers, processes of jobs, actors of Ray.

    python benchmarks/faults.py [--rounds 50] [--seed 0] [--block 10] [--executors local ray] [--json out/faults.json]

A real PostgreSQL, an API server and one worker for each of ``--executors`` (``ray``: every job with actors of its own)
run as processes; jobs are submitted over HTTP, each twice with one idempotency key. A round chooses what kind of
process dies, waits a random time (half of the times only after the next commit), kills one with
SIGKILL, and starts a server or worker again. After ``--block`` rounds the rest of the jobs is waited for, and all is
compared with the same jobs on a store of their own that nobody disturbed. A block fails unless

- every evaluation that was seen committed after any round is there at the end, the very same row;
- no candidate was begun after its evaluation had been committed. Every execution, in whichever process, is a line with
  its time that the model's module appends to a file before it measures (``faults_model.py``); rows of the store carry
  the time of their commit's beginning by the same clock;
- all jobs succeeded, with the evaluations and the front of the undisturbed ones, and a key submitted twice is one job;
- server and workers end with 0 when they are drained, and no process below them is left.

Each block starts with an empty store; a block that the JSON file holds is not run again.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from bitfront.store import Evaluation, Job, Store
from faults_cluster import LEASE_SECONDS, VICTIMS, Cluster
from service_data import postgres
from sqlalchemy import select

EVALUATIONS, FORWARD_SECONDS = 12, 0.15
WAITING = 2  # jobs that are queued beside the running ones
LONGEST_DELAY = 4.0
PATIENCE = 600.0
ATTEMPTS = 20
Key = tuple[int, str, str]  # seed of the job's network, digest of the configuration, split


def submit(cluster: Cluster, number: int) -> str:
    """A job like the others with a network of its own, submitted twice; its id."""
    path = cluster.folder / "job.yaml"
    job = {
        "name": f"job {number}",
        "model": {"factory": "faults_model:network", "arguments": {"seed": number, "seconds": FORWARD_SECONDS}},
        "data": {"calibration": "calibration.npz", "validation": "validation.npz", "batch": 16},
        "space": {"formats": ["w2", "w4", "w8"]},
        "objectives": ["quality", "size_mb"],
        "proxies": ["weight_mse"],
        "search": {"evaluations": EVALUATIONS},
        "workers": {"count": 1},
        "export": None,
    }
    path.write_text(json.dumps(job))  # JSON is YAML
    ids = {cluster.client.submit(path, idempotency_key=f"job-{number}", attempts=ATTEMPTS).id for _ in range(2)}
    if len(ids) != 1:
        raise SystemExit(f"job {number} was made twice: {ids}")
    return ids.pop()


def committed(store: Store) -> dict[Key, tuple[Any, ...]]:
    """All evaluations: key -> the rest of the row."""
    with store.session() as session:
        rows = list(session.scalars(select(Evaluation)))
    seeds = {row.context: int(next(iter(row.formats)).rsplit("_", 1)[1]) for row in rows if row.formats}
    return {
        # a context whose first row is that of the float model has no sites yet that tell the seed
        (seeds[row.context], row.configuration, row.split): (
            row.value,
            row.values,
            row.worker,
            row.created_at.timestamp(),
        )
        for row in rows
        if row.context in seeds
    }


def compare(before: dict[Key, tuple[Any, ...]], after: dict[Key, tuple[Any, ...]]) -> None:
    """That every row is there as it was."""
    for key, row in before.items():
        if after.get(key) != row:
            raise SystemExit(f"{key} was committed as {row} and is now {after.get(key)}")


def states(store: Store) -> Counter[str]:
    """How many jobs are in which state."""
    with store.session() as session:
        return Counter(session.scalars(select(Job.state)))


def finish(cluster: Cluster, store: Store, ids: list[str]) -> dict[str, Any]:
    """Wait until all jobs succeeded, then drain; the front of each job by its name."""
    until = time.monotonic() + PATIENCE
    while (found := states(store))["succeeded"] < len(ids):
        ended = found["failed"] + found["cancelled"] + found["paused"]
        if ended or time.monotonic() > until:
            reasons = [f"{job.name}: {job.state}: {job.reason}" for job in store.jobs() if job.state != "succeeded"]
            raise SystemExit(f"not all jobs succeeded: {'; '.join(reasons)}")
        time.sleep(0.3)
    fronts = {}
    for job_id in ids:
        path = cluster.client.download(job_id, "front.json", cluster.folder / f"{job_id}.json")
        document = json.loads(path.read_text())
        fronts[document["job"]["name"]] = [
            [point["id"], point["digest"], point["pareto"], point["measured"]["validation"]["value"]]
            for point in document["points"]
        ]
    codes = cluster.drain()
    if set(codes.values()) != {0}:
        raise SystemExit(f"not all processes ended well: {codes}")
    if left := cluster.left():
        raise SystemExit(f"processes are left: {left}")
    return fronts


def executions(folder: Path) -> list[tuple[Key, float]]:
    """Every execution of a candidate and when it began."""
    lines = [line.split() for line in (folder / "executions").read_text().splitlines()]
    return [((int(seed), digest, split), float(moment)) for seed, digest, split, moment, _ in lines]


def one_kill(cluster: Cluster, store: Store, kinds: list[str], draw: np.random.Generator) -> tuple[str, float]:
    """What was killed, after how many seconds."""
    kind, delay = str(draw.choice(kinds)), float(draw.uniform(0.05, LONGEST_DELAY))
    until = time.monotonic() + 180
    if draw.random() < 0.5:  # else most kills would hit processes that only start up
        known = len(committed(store))
        while len(committed(store)) == known and time.monotonic() < until:
            time.sleep(0.02)
        delay /= 10
    time.sleep(delay)
    while not (victims := cluster.find(kind)):  # jobs are waiting, so there will be one
        if time.monotonic() > until:
            raise SystemExit(f"no {kind} within three minutes")
        time.sleep(0.02)
    cluster.kill(victims[int(draw.integers(len(victims)))], kind)
    return kind, delay


def disturbed(
    folder: Path, url: str, executors: list[str], rounds: int, draw: np.random.Generator
) -> tuple[list[str], dict[str, Any], dict[Key, tuple[Any, ...]], dict[str, Any]]:
    """Jobs through rounds of kills: what was killed, fronts, evaluations, figures."""
    store, kills, ids = Store(url), [], []
    seen: dict[Key, tuple[Any, ...]] = {}
    kinds = [kind for kind in VICTIMS if kind != "actor" or "ray" in executors]
    with Cluster(folder, url, executors) as cluster:
        for number in range(rounds):
            while len(ids) - states(store)["succeeded"] < len(executors) + WAITING:
                ids.append(submit(cluster, len(ids)))
            kind, delay = one_kill(cluster, store, kinds, draw)
            after = committed(store)
            compare(seen, after)
            seen = after
            kills.append(kind)
            print(f"round {number}: {kind} killed after {delay:.2f} s; {len(after)} committed", flush=True)
        fronts = finish(cluster, store, ids)
    end = committed(store)
    compare(seen, end)
    ran = executions(folder)
    late = [(key, moment - end[key][-1]) for key, moment in ran if key in end and moment > end[key][-1]]
    if late:
        raise SystemExit(f"begun after it had been committed: {late[:5]}")
    if missing := end.keys() - {key for key, _ in ran}:
        raise SystemExit(f"committed without an execution: {sorted(missing)[:5]}")
    attempts = sum(job.attempt for job in store.jobs())
    store.close()
    figures = {
        "jobs": len(ids),
        "attempts": attempts,
        "committed": len(end),
        "executed": len(ran),
        "executed_again_before_a_commit": len(ran) - len({key for key, _ in ran}),
    }
    return kills, fronts, end, figures


def undisturbed(folder: Path, url: str, jobs: int) -> tuple[dict[str, Any], dict[Key, float]]:
    """The same jobs one after the other, evaluated in their own processes: fronts and values."""
    store = Store(url)
    with Cluster(folder, url, ["local"]) as cluster:
        fronts = finish(cluster, store, [submit(cluster, number) for number in range(jobs)])
    values = {key: row[0] for key, row in committed(store).items()}
    store.close()
    return fronts, values


def block(seed: int, number: int, rounds: int, executors: list[str]) -> dict[str, Any]:
    """Some rounds from an empty store."""
    started = time.perf_counter()
    draw = np.random.default_rng([seed, number])
    with tempfile.TemporaryDirectory(prefix="bitfront-faults-") as place, postgres() as url:
        kills, fronts, rows, figures = disturbed(Path(place, "disturbed"), url, executors, rounds, draw)
        calm = f"sqlite:///{place}/undisturbed.db"
        wanted, values = undisturbed(Path(place, "undisturbed"), calm, figures["jobs"])
    if fronts != wanted:
        raise SystemExit(f"fronts differ: {[name for name in wanted if fronts.get(name) != wanted[name]]}")
    if {key: row[0] for key, row in rows.items()} != values:
        raise SystemExit("the evaluations differ from those of the undisturbed jobs")
    seconds = round(time.perf_counter() - started, 1)
    return {
        "seed": seed,
        "block": number,
        "rounds": rounds,
        "kills": dict(Counter(kills)),
        **figures,
        "seconds": seconds,
    }


def table(blocks: list[dict[str, Any]]) -> str:
    """Markdown."""
    names = ["rounds", *VICTIMS, "jobs", "attempts", "committed", "executed", "executed_again_before_a_commit"]
    rows = [{**each, **{kind: each["kills"].get(kind, 0) for kind in VICTIMS}} for each in blocks]
    total = {name: sum(row[name] for row in rows) for name in names}
    lines = [f"| block | {' | '.join(name.replace('_', ' ') for name in names)} |", "|---" * (len(names) + 1) + "|"]
    for title, row in [*((str(each["block"]), each) for each in rows), ("all", total)]:
        lines.append(f"| {title} | {' | '.join(str(row[name]) for name in names)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what the file does not hold yet, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--block", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--executors", nargs="+", choices=["local", "ray"], default=["local", "ray"])
    parser.add_argument("--json", type=Path, default=Path("out/faults.json"))
    asked = parser.parse_args()
    setting = {"executors": asked.executors, "lease_seconds": LEASE_SECONDS, "block": asked.block}
    found: dict[str, Any] = json.loads(asked.json.read_text()) if asked.json.exists() else {}
    if found.get("setting") != setting:
        found = {"setting": setting, "machine": f"{platform.processor() or platform.machine()}", "blocks": []}
    done = {(each["seed"], each["block"], each["rounds"]) for each in found["blocks"]}
    for number, first in enumerate(range(0, asked.rounds, asked.block)):
        rounds = min(asked.block, asked.rounds - first)
        if (asked.seed, number, rounds) in done:
            continue
        row = block(asked.seed, number, rounds, asked.executors)
        found["blocks"].append({**row, "at": datetime.now(UTC).isoformat(timespec="seconds")})
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(found, indent=1))
    print(table(found["blocks"]))


if __name__ == "__main__":
    main()
