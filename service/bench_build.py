"""``bitfront bench build JOB``: a bench of a job's model, measured and kept as files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast, get_args

from ..errors import InvalidInput
from ..search import Progress, Silent, StoredBench, build_bench
from ..search.bench_build import LEAST
from ..search.bench_draws import Vary
from .job import Job
from .run_job import executor_of, load


def bench_folder(job: Job) -> Path:
    """Where the bench of a job goes if nothing else is said."""
    return Path("out") / "bench" / (re.sub(r"[^\w.-]+", "-", job.title).strip("-.") or "model")


def build_job_bench(
    job: Job,
    folder: Path,
    out: Path | None = None,
    *,
    evaluations: int = 440,
    vary: str = "both",
    store: str | None = None,
    executor: str = "ray",
    progress: Progress | None = None,
) -> tuple[StoredBench, Path]:
    """Measure a bench for a job and write it.

    Args:
        job: model, data, space, metric and quantization.
        folder: where the job's relative paths start.
        out: folder of the bench; default: ``bench_folder``.
        evaluations: configurations.
        vary: ``both``, ``weights`` or ``activations``.
        store: URL of the store; what it knows is not measured again.
        executor: ``"ray"`` or ``"local"``.
        progress: who watches.

    Returns:
        The bench, and the folder that it was written to.

    Raises:
        InvalidInput: an option is wrong; nothing was loaded then.
        BitfrontError: see ``search.build_bench``.
    """
    target = out or bench_folder(job)
    if target.exists() and not target.is_dir():
        raise InvalidInput(f"--out {target} is a file; give a folder")
    if vary not in get_args(Vary):
        raise InvalidInput(f"--vary {vary!r}; choose both, weights or activations")
    if evaluations < LEAST:
        raise InvalidInput(f"--evaluations {evaluations}; a rank correlation needs at least {LEAST}")
    workers = executor_of(executor, job)
    watch = progress or Silent()
    made = load(job, folder, watch)
    bench = build_bench(
        made.task,
        made.space,
        evaluations=evaluations,
        vary=cast("Vary", vary),
        seed=job.search.seed,
        recipe=job.quantization.recipe,
        store=store,
        executor=workers,
        progress=watch,
    )
    bench.save(target)
    return bench, target


def summary(bench: StoredBench, out: Path) -> dict[str, Any]:
    """What the command tells of a bench: plain data."""
    return {
        "name": bench.name,
        "metric": bench.metric,
        "out": str(out),
        "digest": bench.digest,
        "configurations": len(bench),
        "stratified": int((bench.frame["origin"] == "stratified").sum()),
        "float_quality": bench.float_quality,
        "best": float(bench.measured.min()),
        "worst": float(bench.measured.max()),
        "inputs": len(bench.statistics.names),
        "left_out": bench.details["statistics"]["left_out"],
        "failed": bench.details["failed"],
    }
