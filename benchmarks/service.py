"""The service under load: claims, pages of a large job, and many writers on SQLite.

    python benchmarks/service.py [--parts claims sqlite-pages postgres-pages writers] [--json out/service_bench.json]

claims          1,000 queued jobs and 20 worker processes on PostgreSQL, each with connections of its own, without any
                work in the jobs: a worker claims, finishes and claims again. Latencies are those that a worker sees.
*-pages         one job with 100,000 measured candidates: pages of jobs and of candidates, the front, and answers to
                budgets, asked one after the other over HTTP of a real server process on the loopback address. The first
                front after a start of the server is told apart: it reads all, later ones what is new.
writers         four processes that write to one SQLite file as fast as they can for some seconds: claims, heartbeats,
                evaluations, events. Any error counts.

A part that the JSON file holds is not run again (``--again``). Figures of docs/service_load.md come from here.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from bitfront.measurement import Measurement
from bitfront.store import Claims, Events, Queue, Store, Submission
from service_data import filled, free_port, postgres, space

JOBS, WORKERS, CANDIDATES = 1000, 20, 100_000
PARTS = ("claims", "sqlite-pages", "postgres-pages", "writers")
Row = dict[str, Any]


def told(name: str, seconds: list[float]) -> Row:
    """Count, median, p99 and worst of some latencies, in milliseconds."""
    found = np.array(seconds) * 1000
    return {
        "what": name,
        "count": len(found),
        "p50_ms": float(np.percentile(found, 50)),
        "p99_ms": float(np.percentile(found, 99)),
        "worst_ms": float(found.max()),
    }


def timed(seconds: list[float], call: Callable[[], Any]) -> Any:
    """Call, and note how long it took."""
    started = time.perf_counter()
    found = call()
    seconds.append(time.perf_counter() - started)
    return found


# -- claims -----------------------------------------------------------------------------------------------------------


def claiming(url: str, name: str, ready: Any, results: Any) -> None:
    """A worker without work: claims and finishes until the queue is empty."""
    store = Store(url)
    claims = Claims(store)
    store.jobs()[:0]
    claimed: list[float] = []
    finished: list[float] = []
    ready.wait()
    started = time.time()
    while (lease := timed(claimed, lambda: claims.claim(name))) is not None:
        timed(finished, lambda: claims.finish(lease, "succeeded", "Done"))
    results.put((started, time.time(), claimed[:-1], finished))
    store.close()


def claims() -> Row:
    """1,000 jobs of ten owners, 20 workers."""
    context = multiprocessing.get_context("spawn")
    with postgres() as url:
        store = Store(url)
        submitted: list[float] = []
        for number in range(JOBS):
            asked = Submission("load", {"number": number}, owner=f"owner-{number % 10}", priority=number % 3)
            timed(submitted, lambda asked=asked: Queue(store).submit(asked))
        ready, results = context.Barrier(WORKERS), context.Queue()
        names = [f"worker-{number}" for number in range(WORKERS)]
        workers = [context.Process(target=claiming, args=(url, name, ready, results)) for name in names]
        for worker in workers:
            worker.start()
        found = [results.get(timeout=300) for _ in workers]
        for worker in workers:
            worker.join()
        counts = Queue(store).counts()
        assert counts == {"succeeded": JOBS}, counts
        store.close()
    wall = max(each[1] for each in found) - min(each[0] for each in found)
    claimed = [seconds for each in found for seconds in each[2]]
    assert len(claimed) == JOBS, len(claimed)
    rows = [told("submit", submitted), told("claim", claimed), told("finish", [s for each in found for s in each[3]])]
    return {"jobs": JOBS, "workers": WORKERS, "seconds": wall, "claims_per_second": JOBS / wall, "rows": rows}


# -- pages ------------------------------------------------------------------------------------------------------------


@contextmanager
def served(url: str) -> Iterator[httpx.Client]:
    """A server process on the loopback address, and a client of it."""
    port = free_port()
    program = f"""
import uvicorn
from bitfront.service.api import create_app
from bitfront.service.settings import Settings
settings = Settings(store={url!r}, port={port}, insecure=True, requests_per_minute=10**9)
uvicorn.run(create_app(settings), port={port}, log_level="warning", access_log=False)
"""
    server = subprocess.Popen([sys.executable, "-c", program])
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            until = time.monotonic() + 120
            while True:
                try:
                    client.get("/healthz").raise_for_status()
                    break
                except httpx.HTTPError:
                    if time.monotonic() > until or server.poll() is not None:
                        raise
                    time.sleep(0.2)
            yield client
    finally:
        server.terminate()
        server.wait(30)


def pages(url: str) -> Row:
    """Latencies of what people look at, of one job with 100,000 candidates."""
    store = Store(url)
    started = time.perf_counter()
    job = filled(store, CANDIDATES)
    for number in range(JOBS):
        Queue(store).submit(Submission(f"waiting {number}", {}, owner=f"owner-{number % 10}"))
    filling = time.perf_counter() - started
    with served(url) as client:

        def ask(path: str, **query: Any) -> Any:
            given = {name: value for name, value in query.items() if value is not None}
            return client.get(f"/v1/{path}", params=given).raise_for_status().json()

        first: list[float] = []
        jobs: list[float] = []
        candidates: list[float] = []
        fronts: list[float] = []
        changed: list[float] = []
        solved: list[float] = []
        proposed = timed(first, lambda: ask(f"jobs/{job}/front"))["proposed"]
        cursor: str | None = None
        for _ in range(20):
            page = timed(jobs, lambda cursor=cursor: ask("jobs", limit=50, cursor=cursor))
            cursor = page["cursor"]
        seen = _through(ask, job, candidates)
        assert seen == proposed, (seen, proposed)
        points = [len(timed(fronts, lambda: ask(f"jobs/{job}/front"))["points"]) for _ in range(100)]
        generator, found = np.random.default_rng(1), space()
        for _ in range(20):  # a measurement arrives, then the front is asked for
            one = found.configuration(generator.integers(0, len(found.formats), len(found.sites)))
            store.add_candidates(job, [(one, "new", 1.0)])
            measured = Measurement.of("kl", "validation", generator.uniform(size=64), 0.1)
            store.save_evaluation("v4-bench-validation", one, measured)
            timed(changed, lambda: ask(f"jobs/{job}/front"))
        for bits in np.linspace(2.3, 7.5, 20):
            body = {"budgets": {"avg_bits": float(bits)}}
            timed(solved, lambda body=body: client.post(f"/v1/jobs/{job}/solve", json=body).raise_for_status())
    store.close()
    rows = [
        told("page of 50 jobs", jobs),
        told("page of 100 candidates", candidates),
        told("first front after a start", first),
        told("front, nothing new", fronts),
        told("front, one new measurement", changed),
        told("answer to a budget", solved),
    ]
    return {"candidates": proposed, "front_points": points[0], "filling_seconds": filling, "rows": rows}


def _through(ask: Callable[..., Any], job: str, seconds: list[float]) -> int:
    """Read every page of candidates; how many there were."""
    seen, cursor = 0, None
    while True:
        page = timed(seconds, lambda cursor=cursor: ask(f"jobs/{job}/candidates", limit=100, cursor=cursor))
        seen, cursor = seen + len(page["candidates"]), page["cursor"]
        if cursor is None:
            return seen


def sqlite_pages() -> Row:
    """On a SQLite file."""
    with tempfile.TemporaryDirectory() as folder:
        return pages(f"sqlite:///{folder}/store.db")


def postgres_pages() -> Row:
    """On PostgreSQL."""
    with postgres() as url:
        return pages(url)


# -- writers ----------------------------------------------------------------------------------------------------------


def writing(url: str, name: str, seconds: float, ready: Any, results: Any) -> None:
    """Submit, claim, beat, write evaluations and events, finish, for some seconds; latencies and errors."""
    store = Store(url)
    queue, claims, events = Queue(store), Claims(store), Events(store)
    latencies: list[float] = []
    errors: list[str] = []
    generator, found = np.random.default_rng(os.getpid()), space()
    ready.wait()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            timed(latencies, lambda: queue.submit(Submission(name, {}, owner=name)))
            lease = timed(latencies, lambda: claims.claim(name))
            if lease is None:
                continue
            for _ in range(5):
                one = found.configuration(generator.integers(0, len(found.formats), len(found.sites)))
                measured = Measurement.of("kl", "validation", generator.uniform(size=64), 0.1)
                timed(latencies, lambda one=one, measured=measured: store.save_evaluation("context", one, measured))
                timed(latencies, lambda lease=lease: claims.beat(lease, {"done": 1}))
                timed(latencies, lambda lease=lease: events.add(lease.job_id, [("log", {"line": "x" * 80})] * 5))
            timed(latencies, lambda lease=lease: claims.finish(lease, "succeeded", "Done"))
        except Exception as cause:  # noqa: BLE001  (counting errors is what this is for)
            errors.append(f"{type(cause).__name__}: {cause}"[:200])
    results.put((latencies, errors))
    store.close()


def writers(processes: int = 4, seconds: float = 30.0) -> Row:
    """Four processes on one SQLite file."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/store.db"
        ready, results = context.Barrier(processes), context.Queue()
        names = [f"writer-{number}" for number in range(processes)]
        running = [context.Process(target=writing, args=(url, name, seconds, ready, results)) for name in names]
        for each in running:
            each.start()
        found = [results.get(timeout=seconds + 120) for _ in running]
        for each in running:
            each.join()
    latencies = [one for each in found for one in each[0]]
    errors = [one for each in found for one in each[1]]
    row = told("transaction", latencies)
    return {"processes": processes, "seconds": seconds, "errors": errors, "rows": [row],
            "transactions_per_second": len(latencies) / seconds}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", type=Path, default=Path("out") / "service_bench.json")
    parser.add_argument("--again", action="store_true", help="also what the JSON file holds")
    options = parser.parse_args()
    document = json.loads(options.json.read_text()) if options.json.exists() else {}
    run = {"claims": claims, "sqlite-pages": sqlite_pages, "postgres-pages": postgres_pages, "writers": writers}
    for part in options.parts:
        if part not in document or options.again:
            load = os.getloadavg()[0]
            found = run[part]()
            machine = {"cores": os.cpu_count(), "load_before": load, "load_after": os.getloadavg()[0]}
            machine |= {"niceness": os.nice(0), "platform": platform.platform(), "python": platform.python_version()}
            document[part] = {**found, "machine": machine, "date": datetime.now(UTC).isoformat(timespec="seconds")}
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(document, indent=1) + "\n")
        show(part, document[part])


def show(part: str, found: Row) -> None:
    """One part as a table."""
    about = {key: value for key, value in found.items() if key not in ("rows", "machine")}
    print(f"\n{part}: {json.dumps(about)}")
    print(f"{'':28s} {'count':>6s} {'p50 ms':>9s} {'p99 ms':>9s} {'worst ms':>9s}")
    for row in found["rows"]:
        print(f"{row['what']:28s} {row['count']:6d} {row['p50_ms']:9.1f} {row['p99_ms']:9.1f} {row['worst_ms']:9.1f}")


if __name__ == "__main__":
    main()
