"""What ``benchmarks/service.py`` loads: a PostgreSQL of its own, and a job with very many measured candidates."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from bitfront.hw_models import price
from bitfront.measurement import Measurement
from bitfront.proxies import Sensitivity
from bitfront.search.knowledge import Knowledge, remember
from bitfront.search.problem import FLOAT
from bitfront.space import SearchSpace, Site
from bitfront.store import Candidate, Claims, Evaluation, Queue, Store, Submission
from sqlalchemy import insert

SITES, SAMPLES, FINALISTS = 50, 64, 40
FORMATS = ("w2", "w3", "w4", "w6", "w8")
_ROWS = 5000
_PROGRAMS = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@contextmanager
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL on a free port with its default settings, so that a commit waits for the disk."""
    if _PROGRAMS is None:
        raise SystemExit("no PostgreSQL server programs under /usr/lib/postgresql; install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="bitfront-bench-"))
    shutil.chown(folder, "postgres", "postgres")

    def run(*command: str | Path) -> None:
        subprocess.run(["runuser", "-u", "postgres", "--", *command], check=True, capture_output=True, cwd=folder)

    run(_PROGRAMS / "initdb", "-D", folder / "data", "--auth=trust")
    options = f"-p {(port := free_port())} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    run(_PROGRAMS / "pg_ctl", "-D", folder / "data", "-o", options, "-w", "-l", folder / "log", "start")
    try:
        yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
    finally:
        run(_PROGRAMS / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
        shutil.rmtree(folder)


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def space() -> SearchSpace:
    """50 linear layers of growing width in five formats."""
    widths = [64 + 16 * index for index in range(SITES)]
    sites = [
        Site(
            f"blocks.{index}.linear", "linear", (width, width), width * width, FORMATS,
            f"blocks.{index}.linear.weight", (f"blocks.{index}.linear",),
        )
        for index, width in enumerate(widths)
    ]  # fmt: skip
    return SearchSpace(sites, FORMATS)


def filled(store: Store, candidates: int, seed: int = 0) -> str:
    """A running job with so many measured candidates, some of them on held-out data; its id.

    Qualities are sums of scores with noise; every evaluation has the values of 64 samples, as real ones have.
    """
    generator = np.random.default_rng(seed)
    found = space()
    scores = np.exp(-np.array([2.0, 3, 4, 6, 8])) * generator.uniform(0.2, 5.0, size=(SITES, 1))
    proxies = {"sqnr": Sensitivity("sqnr", scores, None, tuple(found.names), FORMATS, 1.0)}
    contexts = {"validation": "v4-bench-validation", "holdout": "v4-bench-holdout"}
    prices = price(found, "cpu", 1, ["size_mb", "avg_bits", "bops"])
    known = Knowledge("bench", "kl", found, prices, proxies, ("quality", "size_mb", "bops"), {}, contexts)  # type: ignore[arg-type]
    job, _ = Queue(store).submit(Submission("bench", {"name": "bench"}))
    Claims(store).claim("bench")
    kept = remember(store, f"bench-{job.id}", known)
    store.add_record(job.id, {"search": {"key": f"bench-{job.id}", "knowledge": kept, "contexts": contexts}})
    bits = generator.uniform(0, len(FORMATS), size=(candidates, 1))  # some coarse, some fine, most in between
    choices = np.clip(np.rint(bits + generator.normal(0, 1, size=(candidates, SITES))), 0, len(FORMATS) - 1).astype(int)
    uniform = [found.choice(one) for one in found.uniforms().values()]
    choices[: len(uniform)] = uniform
    choices = np.unique(choices, axis=0)[generator.permutation(len(np.unique(choices, axis=0)))]
    rows = [(found.configuration(choice), scores[np.arange(SITES), choice].sum()) for choice in choices]
    _insert(store, job.id, contexts, rows, generator)
    return job.id


def _insert(store: Store, job_id: str, contexts: Any, rows: list[Any], generator: np.random.Generator) -> None:
    for split, context in contexts.items():
        store.save_evaluation(context, FLOAT, Measurement.of("kl", split, np.zeros(SAMPLES), 0.1))
    store.add_candidates(job_id, [(FLOAT, "float", None)])
    finest = sorted(range(len(rows)), key=lambda row: rows[row][1])[:FINALISTS]
    wanted = {"validation": range(len(rows)), "holdout": finest}
    for start in range(0, len(rows), _ROWS):
        with store.writing() as session:
            session.execute(insert(Candidate), [
                {"job_id": job_id, "configuration": one.digest, "formats": one.to_dict(), "origin": "bench",
                 "predicted": float(score), "position": start + number + 2}
                for number, (one, score) in enumerate(rows[start : start + _ROWS])
            ])  # fmt: skip
    for split, chosen in wanted.items():
        for start in range(0, len(chosen), _ROWS):
            with store.writing() as session:
                session.execute(
                    insert(Evaluation),
                    [
                        _evaluation(contexts[split], split, *rows[row], generator)
                        for row in chosen[start : start + _ROWS]
                    ],
                )


def _evaluation(context: str, split: str, one: Any, score: float, generator: np.random.Generator) -> dict[str, Any]:
    values = score * generator.lognormal(0, 0.2, size=SAMPLES)
    spread = 1.96 * values.std() / np.sqrt(SAMPLES)
    value = float(values.mean())
    return {
        "context": context, "configuration": one.digest, "split": split, "metric": "kl", "value": value,
        "low": value - spread, "high": value + spread, "seconds": 0.1, "samples": SAMPLES,
        "values": values.astype("<f8").tobytes(), "formats": one.to_dict(), "worker": "bench",
    }  # fmt: skip
